"""What runs the network. One file a runtime; its name is the config's `backend`."""
