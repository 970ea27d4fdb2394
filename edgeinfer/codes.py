"""Every code that edgeinfer gives to programs, each with one sentence for people.

Codes stand in messages, at /healthz and /readyz, in `last_crash.json`, and in how the process exits. This module is
data alone and imports nothing of ours: a subscriber may use it too. Codes are only ever added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

State = Literal["starting", "running", "stalled", "reconnecting", "ended", "failed"]
"""`state` of a status message."""

STATES: Final[Mapping[State, str]] = {
    "starting": "It is being opened for the first time, or has given no frame yet.",
    "running": "Frames come.",
    "stalled": "It has given no frame for `stall_s`, or the same picture for `frozen_s`.",
    "reconnecting": "It gave no frame for `timeout_s`, or failed, and is closed and opened again.",
    "ended": "It has come to its end, was stopped, or was taken out of the configuration.",
    "failed": "It can't be used; a camera that a person must mend is still tried again, but rarely.",
}

DropReason = Literal["overload", "max_fps", "stale", "frozen", "thermal", "publish", "shutdown", "unreadable", "memory"]
"""Why a captured frame has no result: a key of `dropped_by_reason`."""

DROP_REASONS: Final[Mapping[DropReason, str]] = {
    "overload": "A newer frame of the same live source took its place.",
    "max_fps": "The source gives more frames than `max_fps` asks for.",
    "stale": "The frame was older than `max_age_ms` when its turn came.",
    "frozen": "The source has shown the same picture for `frozen_s`.",
    "thermal": "The machine is throttled, and uses a share of the live sources' frames only.",
    "publish": "The publisher had no room for the result of a live source.",
    "shutdown": "The run, or the source's part in it, ended first.",
    "unreadable": "The picture could not be decoded.",
    "memory": "The GPU had no room for the frame's batch.",
}

SOURCE_REASONS: Final[Mapping[str, str]] = {
    "timeout": "The source is there, but gives no frame or no answer in time.",
    "opening": "The source is still being opened, and `text` tells what takes so long.",
    "frozen": "The source shows the same picture again and again; this is judged only with `frozen_s`.",
    "gone": "The device is not plugged in.",
    "busy": "Another program uses the device.",
    "denied": "This process may not open the device.",
    "refused": "Nobody listens at the camera's address.",
    "network": "The camera can't be reached, or its answer makes no sense.",
    "closed": "The camera ended the stream.",
    "unauthorized": "The camera refuses the user and password (401 or 403), or the password file can't be used.",
    "not_found": "The camera has no such stream (404).",
    "codec": "The stream holds no video that can be decoded.",
    "hung": "A call into the driver, or the process that reads the camera, never came back.",
    "crashed": "The process that reads and decodes the source ended, or answered what makes no sense.",
    "memory": "Decoding the source takes more memory than its process may have.",
    "input": "The source is missing or unreadable for another reason, which `text` tells.",
    "error": "Another error, which `text` tells.",
    "end": "A file, or another source with an end, has come to it.",
    "stopped": "The source was stopped, for the end of the run or for a change of its settings.",
    "removed": "The source was taken out of the configuration; this is its last status.",
    "stuck": "The source is to be opened again, but its driver does not let go of it, or of the threads in it.",
}
"""`reason.code` in the status of a source."""

NEWS: Final[Mapping[str, str]] = {
    "engine-building": "A TensorRT engine is being built; `text` tells how far it is.",
    "engine-ready": "The engine has been built and runs the model.",
    "engine-failed": "The engine could not be built or failed in its first frames; another backend serves.",
    "tensorrt-unused": "A GPU or a Jetson is here and TensorRT is not used; `text` tells why, and how to mend it.",
    "reloaded": "The configuration was read again and applied; `text` tells what is different.",
    "reload-failed": "A changed configuration was refused, or its model failed; what served before goes on.",
    "throttled": "The machine is throttled, and live sources are used at a share of their frames.",
    "out-of-memory": "The GPU had no room for a batch; smaller ones are tried.",
    "sink-failed": "A sink loses messages: a full disk, a reader that has stopped; `text` tells which and why.",
    "fatal": "The process can't go on and is about to end.",
}
"""`reason.code` in the status of the daemon as a whole (source `_daemon`)."""

HEALTH: Final[Mapping[str, str]] = {
    "supervisor": "The main loop has not turned for some time.",
    "inference": "The inference thread has ended with an error.",
    "publisher": "The publisher thread has ended with an error.",
}
"""Why /healthz says no: start the process again. /readyz gives the same reasons."""

READINESS: Final[Mapping[str, str]] = {
    "model": "The model is not loaded yet.",
    "out-of-memory": "The GPU has had no room for batches for some time.",
    "socket": "The publisher's socket has failed.",
    "sink": "A sink loses messages, or has been given up.",
    "sources": "Fewer than `ready_min_sources` sources run.",
}
"""Why only /readyz says no: the process can go on, but does not do all of its work."""

CRASHES: Final[Mapping[str, str]] = {
    "stalled": "A stage did not move within its deadline.",
    "sticky-cuda-error": "A CUDA error has cost the process its GPU.",
    "fatal": "Another error after which the process could not go on.",
    "killed": "The process ended without a word: by SIGKILL, SIGABRT or the kernel's out-of-memory killer.",
}
"""`code` in `last_crash.json`, and of `last_crash` in the daemon's status."""

PROBLEMS: Final[Mapping[str, str]] = {
    "python-too-old": "Python is older than edgeinfer needs.",
    "gpu-hidden": "CUDA_VISIBLE_DEVICES leaves no GPU.",
    "gpu-denied": "This user may not open the GPU's device nodes.",
    "gpu-unreachable": "There is a driver or a Jetson, and programs reach no GPU.",
    "no-gpu": "No NVIDIA driver was found.",
    "driver-too-old": "The driver serves an older CUDA than TensorRT was built for.",
    "cuda-unusable": "The driver shows a GPU, and Python can't make a stream on it.",
    "cuda-python-unused": "cuda-python is passed over for CUDA's own library.",
    "tensorrt-missing": "TensorRT is not installed.",
    "tensorrt-bindings-missing": "TensorRT's library is here, and its Python bindings are not.",
    "tensorrt-not-visible": "TensorRT's bindings can't be seen from this virtual environment.",
    "tensorrt-other-python": "TensorRT's bindings are for another Python.",
    "tensorrt-broken": "TensorRT is installed and does not load.",
    "tensorrt-too-old": "TensorRT is older than edgeinfer needs.",
    "tensorrt-unlisted": "TensorRT is not the one that this JetPack came with.",
    "tensorrt-known-bad": "Others have found this TensorRT to give wrong results here.",
    "rtx-on-jetson": "TensorRT-RTX serves no GPU of a Jetson.",
    "conversion-missing": "TensorRT takes the precision from the file, and what converts it is not installed.",
    "onnxruntime-missing": "ONNX Runtime is not installed.",
    "onnxruntime-broken": "ONNX Runtime is installed and does not load.",
    "l4t-unknown": "The release of L4T is not in the table.",
    "upgrade-unfinished": "An upgrade of NVIDIA's packages was broken off.",
    "sources-disagree": "Two sources contradict each other.",
    "jtop-unused": "jetson-stats is installed and can't be asked.",
    "unreadable": "A file can't be used.",
    "library-fails": "A library of the driver fails.",
}
"""`code` of what `edgeinfer doctor` finds wrong."""

CaptureClock = Literal["driver", "rtcp", "arrival", "file"]
"""Who stamped a frame: `capture_clock` of a detections message."""

CAPTURE_CLOCKS: Final[Mapping[CaptureClock, str]] = {
    "driver": "The camera's driver stamped the frame.",
    "rtcp": "The network camera's own clock stamped the frame.",
    "arrival": "The frame was stamped by our clock when it arrived.",
    "file": "The frame comes from a file and was stamped when it was read.",
}

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "It ended as asked.",
    64: "The command line is wrong.",
    66: "An input (camera, video, image, model) is missing or unreadable.",
    69: "There is no usable device, a library is missing, or nobody answers.",
    70: "The process could not go on; start it again. A command: it failed, and trying again would not help.",
    75: "It failed for now: a port in use, a full disk. `edgeinfer status`: a source does not run, or a sink loses.",
    78: "The configuration is wrong; starting again won't help.",
    130: "A command was interrupted before it was done. `run`, `listen` and `top` end with 0 then.",
}
"""What the process exits with, after sysexits.h. A second signal ends it at once with 128 + the signal's number."""
