"""What runs the network: a file for each runtime, called as in the configuration's `backend`."""
