"""The CPU preprocessing: bilinear resize, padding, colour order, normalisation, planes.

This is the reference; an implementation for another device must give the same numbers.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.pictures.host import HostSurface
from edgeinfer.preprocess.shrinking import Shrinker
from edgeinfer.types import Float32, Image, Letterbox, Picture, size_of

_REMEMBERED = 256


def geometry(frame_width: int, frame_height: int, card: InputCard) -> Letterbox:
    """How a frame of that size (pixels) lies in the input. The scales are those of the rounded size, per axis."""
    if card.resize == "stretch":
        return Letterbox(frame_width, frame_height, card.width / frame_width, card.height / frame_height, 0, 0)
    scale = min(card.width / frame_width, card.height / frame_height)
    width = min(card.width, max(1, round(frame_width * scale)))
    height = min(card.height, max(1, round(frame_height * scale)))
    return Letterbox(
        frame_width,
        frame_height,
        width / frame_width,
        height / frame_height,
        (card.width - width) // 2,
        (card.height - height) // 2,
    )


class Fitting:
    """Remembers how frames of the sizes seen lie in the input."""

    def __init__(self, card: InputCard) -> None:
        self._card = card
        self._known: dict[tuple[int, int], tuple[Letterbox, tuple[int, int]]] = {}

    def __call__(self, picture: Picture) -> tuple[Letterbox, tuple[int, int]]:
        """The letterbox of a picture, and its width and height within the input."""
        size = size_of(picture)
        found = self._known.get(size)
        if found is None:
            box = geometry(*size, self._card)
            found = box, (round(size[0] * box.scale_x), round(size[1] * box.scale_y))
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[size] = found
        return found


class Preprocessor:
    """Writes frames into a batch input. Not thread-safe: one per inference thread."""

    def __init__(self, card: InputCard) -> None:
        self._fitting = Fitting(card)
        self._shrink = Shrinker()
        self._fill = card.fill
        levels = np.arange(256)[:, None]
        # One table per channel does the whole normalisation: 256 levels are all that a uint8 pixel has.
        self._tables = np.ascontiguousarray(((levels - card.mean) / card.std).astype(np.float32).T)
        self._planes = (0, 1, 2) if card.color == "bgr" else (2, 1, 0)

    def __call__(self, picture: Picture, out: Float32) -> Letterbox:
        """Fills `out`, a (3, H, W) float32 view of the input. Raises what `Surface.image` may raise."""
        box, (width, height) = self._fitting(picture)
        resized = self._resized(picture, width, height)
        planes = cv2.split(resized)
        inside = out[:, box.pad_y : box.pad_y + height, box.pad_x : box.pad_x + width]
        for channel, plane in enumerate(self._planes):
            cv2.LUT(planes[plane], self._tables[channel], dst=inside[channel])
            _pad(out[channel], box, width, height, self._tables[channel, self._fill])
        return box

    def _resized(self, picture: Picture, width: int, height: int) -> Image:
        """(height, width, 3) uint8 BGR, valid until the next call."""
        if isinstance(picture, HostSurface):
            return self._shrink(picture, width, height)
        image = picture if isinstance(picture, np.ndarray) else picture.image()
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _pad(plane: Float32, box: Letterbox, width: int, height: int, value: np.float32) -> None:
    plane[: box.pad_y] = value
    plane[box.pad_y + height :] = value
    plane[box.pad_y : box.pad_y + height, : box.pad_x] = value
    plane[box.pad_y : box.pad_y + height, box.pad_x + width :] = value
