"""Where messages go: a file for each kind of sink; `zmq` is the one that `publish` sets up."""
