"""Where messages go. One file a kind of sink; `zmq` is the one that `publish` in the config sets up."""
