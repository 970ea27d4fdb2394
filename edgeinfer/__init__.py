"""edgeinfer: cameras in, detections out over ZeroMQ."""

__version__ = "0.1.0"
