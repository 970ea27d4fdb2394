"""A video file to measure with, made on the spot, where the user names none."""

from __future__ import annotations

from pathlib import Path

import cv2

from edgeinfer.errors import TemporaryError
from edgeinfer.sources.demo import Demo, Options


def write_clip(path: Path, frames: int) -> None:
    """Writes the demo as 720p MPEG-4 part 2, which OpenCV can encode everywhere. Raises TemporaryError."""
    camera = Demo(Options(realtime=False))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (1280, 720))
    if not writer.isOpened():
        raise TemporaryError(f"{path}: OpenCV can't write a video here", "give one: edgeinfer bench --source FILE")
    for index in range(frames):
        writer.write(camera.render(index))
    writer.release()
