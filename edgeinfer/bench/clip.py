"""A video file to measure with, made on the spot, where the user names none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from edgeinfer.errors import TemporaryError
from edgeinfer.sources.demo import Demo, Options

WIDTH, HEIGHT, FPS = 1280, 720, 30
BITS_PER_S = 4_000_000
KEY_FRAMES = 30
"""From one key frame to the next, as cameras are set."""

Tell = Callable[[str], None]


def write_clip(path: Path, frames: int, tell: Tell = lambda _: None) -> None:
    """Writes the demo as a camera sends it: 720p30 in H.264, 4 Mbit/s, without B-frames.

    Where PyAV is missing or can't encode that, it is MPEG-4 part 2, which OpenCV encodes everywhere, and `tell` hears
    of it. Raises TemporaryError where nothing can be written.
    """
    camera = Demo(Options(width=WIDTH, height=HEIGHT, realtime=False))
    try:
        _write_h264(importlib.import_module("av"), path, camera, frames)
    except Exception as error:  # PyAV's errors have no common base, and a build without libx264 raises another
        tell(f"the clip is MPEG-4, as no H.264 can be encoded here ({type(error).__name__}); --source FILE takes yours")
        _write_mpeg4(path, camera, frames)


def _write_h264(av: Any, path: Path, camera: Demo, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS_PER_S
        stream.options = {"preset": "veryfast", "g": str(KEY_FRAMES), "bf": "0"}
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(camera.render(index), format="bgr24")))
        container.mux(stream.encode(None))


def _write_mpeg4(path: Path, camera: Demo, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), float(FPS), (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise TemporaryError(f"{path}: OpenCV can't write a video here", "give one: edgeinfer bench --source FILE")
    for index in range(frames):
        writer.write(camera.render(index))
    writer.release()
