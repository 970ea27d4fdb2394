"""Pictures made small for people to look at, and JPEG: as cheap as it goes, not as exact.

A surface's planes are made small one by one, and only then mixed into colours. Its chroma is taken to lie in the middle
of its pixels, which is off by half a pixel of luma.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from edgeinfer.pictures.colour import matrix
from edgeinfer.pictures.host import HostSurface, eight_bits
from edgeinfer.types import AnyArray, Image, Picture, size_of

QUALITY = 70


@runtime_checkable
class Fetched(Protocol):
    """What a surface elsewhere has besides that can be brought here as it is."""

    def host(self) -> HostSurface:
        """The same picture in host memory. Raises what `Surface.image` does."""


def reduced(picture: Picture, width: int) -> Image:
    """(H, W, 3) uint8 BGR of the picture's shape, no wider than `width` and never larger than the picture. Read-only.

    Raises what `Surface.image` does.
    """
    size = fitting(*size_of(picture), width)
    if isinstance(picture, np.ndarray):
        return np.asarray(_made_small(picture, size), np.uint8)
    surface = picture.host() if isinstance(picture, Fetched) else picture
    if isinstance(surface, HostSurface):
        return _mixed(surface, size)
    return np.asarray(_made_small(surface.image(), size), np.uint8)


def fitting(width: int, height: int, widest: int) -> tuple[int, int]:
    """Width and height of a picture that may be so wide at most."""
    if width <= widest:
        return width, height
    return widest, max(1, round(height * widest / width))


def jpeg(image: Image, quality: int = QUALITY) -> bytes:
    """The picture as a file, (H, W, 3) uint8 BGR. Raises MemoryError."""
    try:
        encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise MemoryError(f"a picture can't be encoded: {error.err}") from None
    if not encoded:
        raise MemoryError("a picture can't be encoded")
    return data.tobytes()


def _made_small(samples: AnyArray, size: tuple[int, int]) -> Any:
    """Halved by averaging while that leaves enough, which is cheap, and then taken between samples."""
    made: Any = samples
    while made.shape[1] >= 2 * size[0] and made.shape[0] >= 2 * size[1]:
        made = cv2.resize(made, (made.shape[1] // 2, made.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if (made.shape[1], made.shape[0]) == size:
        return made
    return cv2.resize(made, size, interpolation=cv2.INTER_LINEAR)


def _mixed(surface: HostSurface, size: tuple[int, int]) -> Image:
    planes = [surface.luma, *(np.ascontiguousarray(chroma) for chroma in surface.chroma)]
    yuv = cv2.merge([eight_bits(_made_small(plane, size)) for plane in planes])
    return np.asarray(cv2.transform(yuv, matrix(surface.colour)), np.uint8)
