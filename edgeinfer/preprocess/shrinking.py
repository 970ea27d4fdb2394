"""A surface at the size that the network sees, as BGR: no picture of the full size is ever made of it.

Its planes are resized one by one, bilinearly and each by where its samples lie, and only then mixed into colours.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeinfer.pictures.colour import matrix
from edgeinfer.pictures.host import HostSurface, Samples
from edgeinfer.types import AnyArray, Image


class Scratch:
    """Memory for what lies between, used again and again: fresh pages cost more than what is computed in them."""

    def __init__(self) -> None:
        self._flat: dict[str, npt.NDArray[np.uint8]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> AnyArray:
        """An array with arbitrary contents, until the next one of that name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        flat = self._flat.get(name)
        if flat is None or flat.size < size:
            flat = self._flat[name] = np.empty(size, np.uint8)
        return flat[:size].view(dtype).reshape(shape)


class Shrinker:
    """Not thread-safe."""

    def __init__(self) -> None:
        self._scratch = Scratch()

    def __call__(self, surface: HostSurface, width: int, height: int) -> Image:
        """(height, width, 3) uint8 BGR, valid until the next call."""
        scratch, shape = self._scratch, (height, width)
        deep = surface.shape.depth == 2
        luma = scratch("luma", shape, np.uint16 if deep else np.uint8)
        cv2.resize(surface.luma, (width, height), dst=luma, interpolation=cv2.INTER_LINEAR)
        planes = [luma if deep else luma.astype(np.uint16)]
        for name, chroma in zip("uv", surface.chroma, strict=True):
            fine = self._chroma(name, chroma, width / surface.width, 2 * height / surface.height)
            planes.append(fine[:height, :width])
        yuv = cv2.merge(planes, dst=scratch("yuv", (*shape, 3), np.uint16))
        units = (1 / 256, 1 / 256, 1 / 256, 1) if deep else (1, 1 / 2, 1 / 2, 1)
        mix = matrix(surface.colour) * np.array(units, np.float32)
        levels = cv2.transform(yuv, mix, dst=scratch("levels", yuv.shape, np.uint16))
        return np.asarray(cv2.convertScaleAbs(levels, dst=scratch("bgr", yuv.shape, np.uint8)), np.uint8)

    def _chroma(self, name: str, chroma: Samples, across: float, down: float) -> AnyArray:
        """A chroma plane, resized by those factors of its luma's width and its own height. See `_doubled`."""
        doubled = self._doubled(chroma)
        size = round(doubled.shape[0] * down), round(doubled.shape[1] * across)
        target: Any = self._scratch(name, size, np.uint16)
        return cv2.resize(doubled, None, dst=target, fx=across, fy=down, interpolation=cv2.INTER_LINEAR)

    def _doubled(self, chroma: Samples) -> npt.NDArray[np.uint16]:
        """A chroma plane with as many columns as the luma has, or one more; doubled values where samples have 8 bits.

        A sample lies on an even column; on an odd one is the mean of its neighbours. So columns lie as the luma's do,
        and between them a bilinear resize finds what it would have found between the samples. Rows lie as it takes
        them to lie.
        """
        rows, columns = chroma.shape
        even, odd = (self._scratch(name, chroma.shape, np.uint16) for name in ("even", "odd"))
        np.copyto(even, chroma) if chroma.dtype == np.uint8 else np.right_shift(chroma, 1, out=even)
        np.add(even[:, :-1], even[:, 1:], out=odd[:, :-1])
        even += even
        odd[:, -1] = even[:, -1]
        both: Any = self._scratch("both", (rows, columns, 2), np.uint16)
        return np.asarray(cv2.merge([even, odd], dst=both), np.uint16).reshape(rows, 2 * columns)
