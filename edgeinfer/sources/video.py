"""Video files, through OpenCV's FFmpeg: every frame at the speed of inference, or in real time like a camera."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import cv2
from msgspec import Struct

from edgeinfer.config.paths import check_readable
from edgeinfer.errors import InputError
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.sources._opencv import Frames
from edgeinfer.types import Capture

# FFmpeg writes its own lines to stderr; what matters of them is in our errors.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
SILENT = 0
set_log_level = getattr(cv2, "setLogLevel", None) or getattr(getattr(cv2.utils, "logging", None), "setLogLevel", None)
if set_log_level is not None:  # the function has had two homes, and some builds lack both
    set_log_level(SILENT)
RECONNECT = False
TRIES, PAUSE_S = 60, 0.25
EXACT = frozenset({".mp4", ".m4v", ".mov"})
"""Containers whose header counts the frames exactly; elsewhere the count is an estimate."""


class Options(Struct, frozen=True, kw_only=True):
    """`realtime` plays at the file's own rate and drops like a camera; `loop` starts again at the end."""

    realtime: bool = False
    loop: bool = False


def open(uri: str, options: Options) -> VideoFile:  # noqa: A001 (the plugin interface)
    """Opens the file. Raises InputError."""
    return VideoFile(Path(uri), options)


class VideoFile:
    """See `Source`."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._loop = options.loop
        self._reader = _open(path)
        self._pictures = Frames(self._reader)
        self.live = options.realtime
        self.fps = self._reader.get(cv2.CAP_PROP_FPS) or 0.0
        self._pacer = Pacer(self.fps or 25.0) if options.realtime else None
        self._expected = int(self._reader.get(cv2.CAP_PROP_FRAME_COUNT))
        self._frames = 0
        self._played_ns = 0
        self._place_ns = 0

    def read(self) -> Capture | None:
        """See `Source.read`. A file that ends well before the length in its header raises InputError."""
        image = self._pictures.read()
        if image is None and self._loop and self._frames:
            self._reopen()
            image = self._pictures.read()
        if image is None:
            self._check_end()
            return None
        self._frames += 1
        if self._pacer:
            self._pacer.wait()
        self._place_ns = self._played_ns + int(self._reader.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        return stamped(image, "file", self._place_ns)

    def close(self) -> None:
        """See `Source.close`."""
        self._reader.release()

    def _reopen(self) -> None:
        self._reader.release()
        self._reader = _open_again(self._path)
        self._pictures = Frames(self._reader)
        self._frames = 0
        self._played_ns = self._place_ns + round(1e9 / (self.fps or 25.0))  # time goes on from one round to the next

    def _check_end(self) -> None:
        missing = self._expected - self._frames
        allowance = 2.0 if self._path.suffix.lower() in EXACT else max(2, 0.02 * self._expected)
        if self._frames == 0:
            raise InputError(f"{self._path}: not one frame can be decoded", "it is damaged, or in an unknown codec")
        if self._expected > 0 and missing > allowance:
            raise InputError(
                f"{self._path}: ended after {self._frames} of {self._expected} frames: truncated or damaged",
                "the frames before that were published",
            )


def _open_again(path: Path) -> cv2.VideoCapture:
    """A file that was open before. One that is there still and can't be opened lacks descriptors, for a moment."""
    for _ in range(TRIES):
        check_readable(path)
        with contextlib.suppress(InputError):
            return _open(path)
        time.sleep(PAUSE_S)
    return _open(path)


def _open(path: Path) -> cv2.VideoCapture:
    check_readable(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory", "a folder of images is a source too, a folder of videos is not")
    if not path.is_file():
        raise InputError(f"{path}: no regular file", "a pipe or device is no video; gst:filesrc location=… reads those")
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not reader.isOpened():
        raise InputError(f"{path}: not a video that FFmpeg can open", "is it complete, and really a video?")
    width, height = reader.get(cv2.CAP_PROP_FRAME_WIDTH), reader.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MAX_PIXELS:
        reader.release()
        raise InputError(f"{path}: {width:g} × {height:g} pixels are too many", "8192 × 8192 are the most")
    return reader
