"""edgeinfer: cameras in, detections out over ZeroMQ."""

import os

__version__ = "0.1.0"

# From 1.31 on ONNX Runtime reports its use to its maker unless told not to before it is imported. A camera doesn't.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
