"""A synthetic camera: real photographs, panned and zoomed on a fixed path, with what must be seen where.

It needs no hardware and no network, is the same on every machine, and looks like a 720p camera to everything after it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from edgeinfer.errors import InputError
from edgeinfer.frames import pool
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.types import Capture, Image

PHOTOS = Path(__file__).parent / "photos"
SCENE_FRAMES = 100
GREY = 96


class Options(Struct, frozen=True, kw_only=True):
    """`realtime: false` gives every frame as fast as it is taken; `frames` ends the source."""

    width: Annotated[int, Meta(ge=64, le=7680)] = 1280
    height: Annotated[int, Meta(ge=64, le=4320)] = 720
    fps: Annotated[float, Meta(ge=0.01, le=1000)] = 30.0
    realtime: bool = True
    frames: Annotated[int, Meta(ge=1)] | None = None


class Scene(Struct, frozen=True):
    """A photograph and its main object: the label, and the box in pixels of the photo, measured by eye."""

    file: str
    label: str
    box: tuple[float, float, float, float]


SCENES = (
    Scene("astronaut.jpg", "person", (22, 15, 365, 512)),
    Scene("chelsea.jpg", "cat", (0, 0, 392, 300)),
    Scene("camera.jpg", "person", (0, 65, 332, 512)),
)


def open(uri: str, options: Options) -> Demo:  # noqa: A001 (the plugin interface)
    """The camera. `uri` is `demo:`; anything after the colon is refused."""
    if uri.partition(":")[2].strip("/"):
        raise InputError(f"{uri}: demo: takes no path", "its settings are keys beside uri, for instance fps")
    return Demo(options)


class Demo:
    """See `Source`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._photos = [_load(scene.file) for scene in SCENES]
        self._index = 0
        self._pacer = Pacer(options.fps) if options.realtime else None
        self.live = options.realtime
        self.fps = options.fps

    def read(self) -> Capture | None:
        """See `Source.read`."""
        if self._index == self._options.frames:
            return None
        if self._pacer:
            self._pacer.wait()
        image = self.render(self._index)
        self._index += 1
        return stamped(image, "arrival", round((self._index - 1) / self._options.fps * 1e9))

    def render(self, index: int) -> Image:
        """Frame `index`, (height, width, 3) uint8 BGR; the caller owns it."""
        photo = self._photos[scene_number(index)]
        view = _view(index, photo.shape[1], photo.shape[0], self._options)
        size = (self._options.width, self._options.height)
        image = pool.empty(self._options.height, self._options.width)
        cv2.warpAffine(photo, view, size, dst=image, flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY))
        return image

    def truth(self, index: int) -> tuple[str, tuple[float, float, float, float]]:
        """The label of frame `index`'s main object, and its box in pixels of the frame, clipped to it."""
        scene, photo = SCENES[scene_number(index)], self._photos[scene_number(index)]
        (scale, _, dx), (_, _, dy) = _view(index, photo.shape[1], photo.shape[0], self._options).tolist()
        x1, y1, x2, y2 = scene.box
        width, height = self._options.width, self._options.height
        return scene.label, (
            max(0.0, x1 * scale + dx),
            max(0.0, y1 * scale + dy),
            min(width, x2 * scale + dx),
            min(height, y2 * scale + dy),
        )

    def close(self) -> None:
        """See `Source.close`."""


def scene_number(index: int) -> int:
    """Which of SCENES frame `index` shows."""
    return index // SCENE_FRAMES % len(SCENES)


def _view(index: int, width: int, height: int, options: Options) -> npt.NDArray[np.float64]:
    """(2, 3) affine map photo pixel → frame pixel: one slow swing a scene, zoom 0.8 to 1.0 of what fits."""
    phase = 2 * math.pi * (index % SCENE_FRAMES) / SCENE_FRAMES
    scale = min(options.width / width, options.height / height) * (0.9 + 0.1 * math.cos(2 * phase))
    dx = (options.width - width * scale) / 2 * (1 + 0.7 * math.sin(phase))
    dy = (options.height - height * scale) / 2 * (1 + math.sin(3 * phase))
    return np.array([[scale, 0, dx], [0, scale, dy]])


def _load(name: str) -> Image:
    image = cv2.imread(str(PHOTOS / name), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{PHOTOS / name}: missing from the installation", "install edgeinfer again")
    return np.asarray(image, np.uint8)
