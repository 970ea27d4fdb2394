"""A surface at the size that the network sees, as BGR: no picture of the full size is ever made of it.

Its planes are resized one by one, bilinearly and each by where its samples lie, and only then mixed into colours. The
thread that does it feeds all sources' networks: few calls, and none on a plane of the full size but the resizing.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from edgeinfer.pictures.colour import matrix
from edgeinfer.pictures.host import HostSurface, Samples, eight_bits
from edgeinfer.types import Image

_FROM_SOURCE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def shrunk(surface: HostSurface, width: int, height: int) -> Image:
    """(height, width, 3) uint8 BGR, in new memory."""
    size = width, height
    luma: Any = cv2.resize(surface.luma, size, interpolation=cv2.INTER_LINEAR)
    u, v = (_chroma(plane, surface, size) for plane in surface.chroma)
    yuv = cv2.merge([eight_bits(luma), eight_bits(u), eight_bits(v)])
    return np.asarray(cv2.transform(yuv, matrix(surface.colour)), np.uint8)


def _chroma(plane: Samples, surface: HostSurface, size: tuple[int, int]) -> Any:
    """A chroma plane at `size`. Its samples lie on the left luma column of their pair, and between its rows.

    The middle of output column x lies at luma column p = (x + 1/2) s - 1/2 and so at p / 2 of the chroma; that of row y
    at p / 2 - 1/4.
    """
    across, down = surface.width / size[0], surface.height / size[1]
    place = np.array([[across / 2, 0, across / 4 - 0.25], [0, down / 2, down / 4 - 0.5]])
    whole: Any = plane if plane.flags.c_contiguous else np.ascontiguousarray(plane)
    return cv2.warpAffine(whole, place, size, flags=_FROM_SOURCE, borderMode=cv2.BORDER_REPLICATE)
