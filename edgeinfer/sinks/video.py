"""Annotated video: the frames with their boxes, one MP4 file per source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from msgspec import Meta, Struct

from edgeinfer.config.paths import exists, is_dir
from edgeinfer.errors import ConfigError, InputError
from edgeinfer.messages import Detection, DetectionsMessage, InfoMessage, Message
from edgeinfer.types import Image, Result


class Options(Struct, frozen=True, kw_only=True):
    """`path` ends in .mp4; with several sources each file gets its source's name: `out-front.mp4`."""

    path: Annotated[str, Meta(min_length=1)]
    fps: Annotated[float, Meta(gt=0, le=1000)] = 30.0


def open(options: Options) -> AnnotatedVideo:  # noqa: A001 (the plugin interface)
    """Checks that the folder can be written to. Raises InputError."""
    path = Path(options.path)
    if path.suffix != ".mp4":
        raise ConfigError(f"sinks.video.path: {path}: the name must end in .mp4")
    target = path if exists(path) else path.parent
    if is_dir(path) or not is_dir(path.parent) or not os.access(target, os.W_OK):
        raise InputError(f"sinks.video.path: {path}: can't be written", "is it in a folder that exists and is yours?")
    return AnnotatedVideo(path, options.fps)


class AnnotatedVideo:
    """See `Sink`. The first frame of a source sets the size; later ones are scaled to it."""

    blocks = True

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._several = False
        self._writers: dict[str, tuple[cv2.VideoWriter, tuple[int, int]]] = {}

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. Raises OSError where the video can't be written."""
        if isinstance(message, InfoMessage):
            self._several = len(message.sources) > 1
        if isinstance(message, DetectionsMessage) and result is not None:
            writer, size = self._writers.get(message.source) or self._add(message.source, result.frame.image)
            picture = annotate(result.frame.image, message.detections)
            same = (picture.shape[1], picture.shape[0]) == size
            writer.write(picture if same else cv2.resize(picture, size))

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`. Only a closed file can be played."""
        for writer, _ in self._writers.values():
            writer.release()

    def _add(self, source: str, image: Image) -> tuple[cv2.VideoWriter, tuple[int, int]]:
        path = self._path.with_stem(f"{self._path.stem}-{source}") if self._several else self._path
        size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)  # MPEG-4 wants even numbers
        size = (max(2, size[0]), max(2, size[1]))
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
        if not writer.isOpened():
            raise OSError(f"{path}: OpenCV can't write a video of {size[0]} × {size[1]} here")
        self._writers[source] = (writer, size)
        return self._writers[source]


def annotate(image: Image, detections: list[Detection]) -> Image:
    """A copy of (H, W, 3) uint8 BGR with boxes and labels drawn into it."""
    picture: Image = image.copy()
    for found in detections:
        x1, y1, x2, y2 = (round(value) for value in found.box)
        color = _color(found.class_id)
        cv2.rectangle(picture, (x1, y1), (x2, y2), color, 2)
        cv2.putText(
            picture,
            f"{found.label} {found.score:.2f}",
            (x1 + 4, max(16, y1 + 18)),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.6,
            color,
            2,
            cv2.LINE_AA,
        )
    return picture


def _color(class_id: int) -> tuple[int, int, int]:
    """A strong colour per class, far from its neighbours': hues in steps of the golden ratio."""
    hsv = np.array([[[class_id * 0.618034 % 1 * 179, 220, 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return int(blue), int(green), int(red)
