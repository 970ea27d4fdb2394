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
MAX_BUFFERS = 64
"""Of a Shrinker: pictures of so many sizes are rare."""


@runtime_checkable
class Fetched(Protocol):
    """What a surface elsewhere has besides that can be brought here as it is."""

    def host(self) -> HostSurface:
        """The same picture in host memory. Raises what `Surface.image` does."""


class Shrinker:
    """Makes pictures small, in memory of its own that is used again: the system's takes longer to get than to fill.

    Used by one thread.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[object, ...], AnyArray] = {}

    def reduced(self, picture: Picture, width: int) -> Image:
        """(H, W, 3) uint8 BGR of the picture's shape, no wider than `width` and never larger than the picture.

        Read-only, and valid until the next call. Raises what `Surface.image` does.
        """
        if len(self._memory) > MAX_BUFFERS:
            self._memory.clear()
        size = fitting(*size_of(picture), width)
        if isinstance(picture, np.ndarray):
            return np.asarray(self._made_small(picture, size), np.uint8)
        surface = picture.host() if isinstance(picture, Fetched) else picture
        if isinstance(surface, HostSurface):
            return self._mixed(surface, size)
        return np.asarray(self._made_small(surface.image(), size), np.uint8)

    def forget(self) -> None:
        """Gives its memory back."""
        self._memory.clear()

    def _mixed(self, surface: HostSurface, size: tuple[int, int]) -> Image:
        planes = (surface.luma, *(self._gapless(chroma, number) for number, chroma in enumerate(surface.chroma, 1)))
        small = [eight_bits(self._made_small(plane, size, number)) for number, plane in enumerate(planes)]
        shape = size[1], size[0], 3
        yuv = cv2.merge(small, self._buffer("yuv", shape, np.uint8))
        return np.asarray(cv2.transform(yuv, matrix(surface.colour), self._buffer("bgr", shape, np.uint8)), np.uint8)

    def _made_small(self, samples: AnyArray, size: tuple[int, int], plane: int = 0) -> Any:
        """Halved by averaging while that leaves enough, which is cheap, and then taken between samples."""
        made = samples
        while made.shape[1] >= 2 * size[0] and made.shape[0] >= 2 * size[1]:
            made = self._resized(made, (made.shape[1] // 2, made.shape[0] // 2), cv2.INTER_AREA, plane)
        if (made.shape[1], made.shape[0]) == size:
            return made
        return self._resized(made, size, cv2.INTER_LINEAR, plane)

    def _resized(self, samples: AnyArray, size: tuple[int, int], how: int, plane: int) -> AnyArray:
        target = self._buffer(plane, (size[1], size[0], *samples.shape[2:]), samples.dtype)
        return np.asarray(cv2.resize(samples, size, target, interpolation=how))

    def _gapless(self, samples: AnyArray, plane: int) -> AnyArray:
        if samples.flags.c_contiguous:
            return samples
        copy = self._buffer(f"copy {plane}", samples.shape, samples.dtype)
        np.copyto(copy, samples)
        return copy

    def _buffer(self, what: object, shape: tuple[int, ...], dtype: Any) -> AnyArray:
        key = what, shape, np.dtype(dtype).char
        if key not in self._memory:
            self._memory[key] = np.empty(shape, dtype)
        return self._memory[key]


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
