"""Annotated video: the frames with their boxes, one MP4 file per source."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edgeinfer.config.paths import exists, is_dir, is_file
from edgeinfer.errors import ConfigError, InputError
from edgeinfer.messages import DetectionsMessage, InfoMessage, Message
from edgeinfer.pictures.drawing import annotate
from edgeinfer.sinks._recording import Recording
from edgeinfer.types import Image, Result


class Options(Struct, frozen=True, kw_only=True):
    """`path` ends in .mp4; with several sources each file gets its source's name: `out-front.mp4`.

    Labels are written in any script from OpenCV 5.0 on; before, Cyrillic, Greek and accented letters are spelled in
    ASCII, and a class whose name can't be is called by its number.
    """

    path: Annotated[str, Meta(min_length=1)]
    fps: Annotated[float, Meta(gt=0, le=1000)] = 30.0


def open(options: Options) -> AnnotatedVideo:  # noqa: A001 (the plugin interface)
    """Checks that the folder can be written to. Raises InputError."""
    path = Path(options.path)
    if path.suffix != ".mp4":
        raise ConfigError(f"sinks.video.path: {path}: the name must end in .mp4")
    target = path if exists(path) else path.parent
    odd = exists(path) and not is_file(path)  # a folder, a pipe, a device
    if odd or not is_dir(path.parent) or not os.access(target, os.W_OK):
        raise InputError(f"sinks.video.path: {path}: can't be written", "is it in a folder that exists and is yours?")
    return AnnotatedVideo(path, options.fps)


class AnnotatedVideo:
    """See `Sink` and `Recovering`. The first frame of a source sets the size; later ones are scaled to it.

    A second at a time is written: the file can be played up to its last whole one, however the run ends.
    """

    blocks = True

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._several = False
        self._recordings: dict[str, Recording] = {}

    @property
    def trouble(self) -> str:
        """See `Recovering.trouble`."""
        return next(filter(None, (each.recovery.trouble for each in list(self._recordings.values()))), "")

    @property
    def reason(self) -> str:
        """See `Recovering.reason`."""
        return next(filter(None, (each.recovery.reason for each in list(self._recordings.values()))), "")

    @property
    def lost(self) -> int:
        """See `Recovering.lost`."""
        return sum(each.recovery.lost for each in list(self._recordings.values()))

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. Raises OSError where OpenCV can't encode the video."""
        if isinstance(message, InfoMessage):
            self._several = len(message.sources) > 1
        if isinstance(message, DetectionsMessage) and result is not None:
            recording = self._recordings.get(message.source) or self._add(message.source, result.frame.image)
            image = result.frame.image
            recording.add(annotate(image, message.detections, image.shape[1] / message.width))
        for recording in self._recordings.values():
            if recording.late:
                recording.flush()

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`. Raises OSError where OpenCV has not encoded the last second."""
        with ExitStack() as stack:
            for recording in self._recordings.values():
                stack.callback(recording.close)

    def _add(self, source: str, image: Image) -> Recording:
        path = self._path.with_stem(f"{self._path.stem}-{source}") if self._several else self._path
        size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)  # MPEG-4 wants even numbers
        self._recordings[source] = Recording(path, self._fps, (max(2, size[0]), max(2, size[1])))
        return self._recordings[source]
