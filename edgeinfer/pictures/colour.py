"""YUV → BGR: the numbers, and the formula in plain numpy that everything faster is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgeinfer.types import Colour, Float32, Image

_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Kr and Kb, the parts of red and blue in luma: Rec. ITU-R BT.601-7, BT.709-6 and BT.2020-2."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Of a sample on the scale of 8 bits: blue = luma * (y - black) + blue_u * (u - 128), and so on; 0 to 255."""

    black: float
    luma: float
    blue_u: float
    green_u: float
    green_v: float
    red_v: float


@lru_cache(maxsize=16)
def coefficients(colour: Colour) -> Coefficients:
    """Samples of more bits are first brought to the scale of 8: divided by 2 to the power of the bits beyond."""
    kr, kb = _WEIGHTS[colour.matrix]
    black, luma, chroma = (0.0, 1.0, 1.0) if colour.full_range else (16.0, 255 / 219, 255 / 224)
    green = 1 - kr - kb
    return Coefficients(
        black,
        luma,
        2 * (1 - kb) * chroma,
        -2 * kb * (1 - kb) / green * chroma,
        -2 * kr * (1 - kr) / green * chroma,
        2 * (1 - kr) * chroma,
    )


def matrix(colour: Colour) -> Float32:
    """(3, 4): blue, green and red of y, u, v and 1; for `cv2.transform` of samples on the scale of 8 bits."""
    c = coefficients(colour)
    rows = np.array([[c.luma, c.blue_u, 0], [c.luma, c.green_u, c.green_v], [c.luma, 0, c.red_v]])
    shift = rows @ np.array([-c.black, -128, -128])
    return np.column_stack([rows, shift]).astype(np.float32)


def reference_bgr(luma: Float32, u: Float32, v: Float32, colour: Colour) -> Float32:
    """(H, W, 3) blue, green, red from 0 to 255, of three (H, W) planes on the scale of 8 bits."""
    yuv = np.stack([luma, u, v, np.ones_like(luma)], axis=-1).astype(np.float32)
    levels: Float32 = np.clip(yuv @ matrix(colour).T, 0, 255)
    return levels


def rounded(levels: Float32) -> Image:
    """Levels as uint8."""
    return np.rint(levels).astype(np.uint8)


def usual(height: int, full_range: bool = False) -> Colour:
    """What a stream is taken for that does not say: BT.709 from 720 lines on, BT.601 below, as players do."""
    return Colour("bt709" if height >= 720 else "bt601", full_range)
