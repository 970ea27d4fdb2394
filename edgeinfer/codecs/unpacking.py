"""FFmpeg's pictures → ours, in the pool's memory: YUV 4:2:0 as it is, what is near to it, and the rest as BGR.

Nothing is scaled or converted that need not be: planes are copied without the gaps between their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeinfer.frames import pool
from edgeinfer.pictures.colour import usual
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.pictures.turning import turned
from edgeinfer.types import Colour, Image, Matrix, Picture

Memory = npt.NDArray[np.uint8]

_MATRICES: dict[int, Matrix] = {
    **dict.fromkeys((1, 7), "bt709"),
    **dict.fromkeys((4, 5, 6), "bt601"),
    **dict.fromkeys((9, 10), "bt2020"),
}
"""Rec. ITU-T H.273, table 4 (MatrixCoefficients), each with the nearest of ours."""
_FULL_RANGE, _NARROW_RANGE = 2, 1
"""AVCOL_RANGE_JPEG and AVCOL_RANGE_MPEG."""
_SWSCALES: dict[Matrix, int] = {"bt709": 1, "bt601": 5, "bt2020": 9}
"""SWS_CS_ITU709, SWS_CS_ITU601 and SWS_CS_BT2020."""


def upright(frame: Any) -> Picture:
    """PyAV's `frame`, copied, and turned as its stream says: a telephone films on its side. Raises as `picture_of`."""
    quarters = round(frame.rotation / 90) % 4
    picture = picture_of(frame)
    return turned(picture, quarters) if quarters else picture


def picture_of(frame: Any) -> Image | HostSurface:
    """PyAV's `frame`, copied. Raises StalledError where there is no memory in time."""
    layout, fill = _WAYS.get(frame.format.name, (None, None))
    if layout is None or fill is None or any(plane.line_size <= 0 for plane in frame.planes):  # stored upside down
        return _bgr(frame)
    shape = Shape(layout, frame.width, frame.height)
    memory = pool.bytes(shape.size)
    fill(frame.planes, shape, memory)
    return HostSurface(memory, shape, colour_of(frame))


def colour_of(frame: Any) -> Colour:
    """What the stream says of its colours; by its size where it doesn't."""
    return colour(frame, frame.height, frame.format.name)


def colour(signalled: Any, lines: int, pixel_format: str | None) -> Colour:
    """What PyAV's frame or codec context says of pictures with so many lines."""
    full = signalled.color_range == _FULL_RANGE or (pixel_format or "").startswith("yuvj")
    return Colour(_MATRICES.get(int(signalled.colorspace), usual(lines).matrix), full)


def _copied(planes: Sequence[Any], shape: Shape, memory: Memory) -> None:
    """All planes as they are."""
    rows, columns = shape.chroma
    chroma = (rows, columns) if shape.layout == "i420" else (rows, 2 * columns * shape.depth)
    extents = [(shape.height, shape.width * shape.depth), chroma, chroma]
    place = 0
    for plane, (height, length) in zip(planes, extents, strict=False):
        target = memory[place : place + height * length].reshape(height, length)
        np.copyto(target, _rows(plane, height, length))
        place += height * length


def _halved(planes: Sequence[Any], shape: Shape, memory: Memory) -> None:
    """4:2:2: each row of chroma is the mean of two."""
    columns = shape.chroma[1]
    np.copyto(shape.luma(memory), _rows(planes[0], shape.height, shape.width))
    for plane, target in zip(planes[1:], shape.chroma_planes(memory), strict=True):
        chroma = _rows(plane, shape.height, columns)
        pairs = shape.height // 2
        if pairs:
            cv2.addWeighted(chroma[0 : 2 * pairs : 2], 0.5, chroma[1::2], 0.5, 0, dst=target[:pairs])
        target[pairs:] = chroma[2 * pairs :]


def _raised(bits: int) -> Callable[[Sequence[Any], Shape, Memory], None]:
    """So many bits, the lower ones of each two bytes, to the upper ones."""

    def fill(planes: Sequence[Any], shape: Shape, memory: Memory) -> None:
        for plane, target in zip(planes, (shape.luma(memory), *shape.chroma_planes(memory)), strict=True):
            height, width = target.shape
            samples = _rows(plane, height, 2 * width).view(np.uint16)
            np.left_shift(samples, 16 - bits, out=target)

    return fill


def _rows(plane: Any, height: int, length: int) -> Memory:
    """(height, length) bytes of a plane, a view."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :length]


def _bgr(frame: Any) -> Image:
    """Through swscale, which would read a frame that names no matrix as BT.601 whatever its size."""
    colour = colour_of(frame)
    plane = frame.reformat(
        format="bgr24",
        src_colorspace=_SWSCALES[colour.matrix],
        src_color_range=_FULL_RANGE if colour.full_range else _NARROW_RANGE,
    ).planes[0]
    image = pool.empty(frame.height, frame.width)
    np.copyto(image.reshape(frame.height, -1), _rows(plane, frame.height, frame.width * 3))
    return image


_WAYS: dict[str, tuple[Layout, Callable[[Sequence[Any], Shape, Memory], None]]] = {
    "yuv420p": ("i420", _copied),
    "yuvj420p": ("i420", _copied),
    "nv12": ("nv12", _copied),
    "p010le": ("p010", _copied),
    "yuv420p10le": ("p010", _raised(10)),
    "yuv420p12le": ("p010", _raised(12)),
    "yuv422p": ("i420", _halved),
    "yuvj422p": ("i420", _halved),
}
"""By FFmpeg's name of the format."""
