"""edgeinfer: cameras in, detections out over ZeroMQ."""

import os

from edgeinfer.guard.limits import MAX_PIXELS

__version__ = "0.1.0"

# From 1.31 on ONNX Runtime reports its use to its maker unless told not to before it is imported. A camera doesn't.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenCV holds a picture's header against this before it takes memory; it reads the variable when it is first imported.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)
