"""Pictures that were filmed with the camera on its side, put upright."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edgeinfer.frames import pool
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.types import AnyArray, Image

_CODES = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def turned(picture: Image | HostSurface, quarters: int) -> Image | HostSurface:
    """A copy that is turned counterclockwise by so many quarters, 1 to 3, in the pool's memory.

    A surface's chroma comes to lie half a pixel from where its samples are said to be. Raises what `FramePool.bytes`
    raises.
    """
    if isinstance(picture, np.ndarray):
        sides = picture.shape[:2] if quarters == 2 else (picture.shape[1], picture.shape[0])
        return np.asarray(cv2.rotate(picture, _CODES[quarters], dst=pool.empty(*sides)), np.uint8)
    old = picture.shape
    shape = old if quarters == 2 else Shape(old.layout, old.height, old.width)
    memory = pool.bytes(shape.size)
    for plane, target in zip(_planes(old, picture.memory), _planes(shape, memory), strict=True):
        cv2.rotate(plane, _CODES[quarters], dst=target)
    return HostSurface(memory, shape, picture.colour)


def _planes(shape: Shape, memory: npt.NDArray[np.uint8]) -> list[AnyArray]:
    """Views: the luma, then each plane of chroma, or (rows, columns, 2) where there are pairs."""
    luma, chroma = shape.luma(memory), shape.chroma_planes(memory)
    if shape.layout == "i420":
        return [luma, *chroma]
    return [luma, memory[shape.luma_bytes :].view(luma.dtype).reshape(*shape.chroma, 2)]
