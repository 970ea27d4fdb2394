"""What a GStreamer process says of a picture → the picture: where it lies if it is whole there, else a copy.

The layout of planes and rows is GStreamer's own for a format ("Raw Video Media Types"): rows are padded to four bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeinfer.frames import pool
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.isolation.errors import too_many
from edgeinfer.isolation.portrait import camera_size
from edgeinfer.isolation.talk import Nonsense, whole
from edgeinfer.pictures.colour import usual
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.types import Colour, Matrix, Picture

Bytes = npt.NDArray[np.uint8]
CHANNELS = {"BGR": 3, "BGRx": 4}
LAYOUTS: dict[str, Layout] = {"NV12": "nv12", "I420": "i420", "P010_10LE": "p010"}
NAMED = {"bt601": "2:4", "smpte240m": "2:5", "bt709": "2:3", "bt2020": "2:6", "bt2020-10": "2:6", "sRGB": "1:4"}
"""GStreamer's names of what it else writes as range:matrix:transfer:primaries (GstVideoColorimetry)."""
MATRICES: dict[str, Matrix] = {"3": "bt709", "4": "bt601", "6": "bt2020"}
"""Of GstVideoColorMatrix."""


@dataclass(frozen=True, slots=True)
class RawPicture:
    """A picture as GStreamer laid it out in `size` bytes. `seen`: width and height of what it was made smaller from."""

    format: str
    width: int
    height: int
    size: int
    colour: Colour
    seen: tuple[int, int] | None

    def picture(self, pixels: Bytes) -> Picture:
        """Of its (size,) bytes. Raises StalledError where there is no memory for a copy."""
        layout = LAYOUTS.get(self.format)
        return self._image(pixels) if layout is None else self._surface(pixels, Shape(layout, self.width, self.height))

    def _image(self, pixels: Bytes) -> Picture:
        channels, stride = CHANNELS[self.format], self.size // self.height
        rows = pixels[: self.height * stride].reshape(self.height, stride)
        inside = rows[:, : self.width * channels].reshape(self.height, self.width, channels)
        if channels == 3 and stride == self.width * 3:
            return inside
        image = pool.empty(self.height, self.width)
        if channels == 4:
            cv2.cvtColor(inside, cv2.COLOR_BGRA2BGR, dst=image)
        else:
            np.copyto(image, inside)
        return image

    def _surface(self, pixels: Bytes, shape: Shape) -> Picture:
        planes = planes_of(self.format, self.width, self.height)
        if [(plane.at, plane.stride) for plane in planes] == [(plane.at, plane.row) for plane in whole_planes(planes)]:
            return HostSurface(pixels[: shape.size], shape, self.colour)
        memory, place = pool.bytes(shape.size), 0
        for plane in planes:
            rows = pixels[plane.at : plane.at + plane.rows * plane.stride].reshape(plane.rows, plane.stride)
            end = place + plane.rows * plane.row
            np.copyto(memory[place:end].reshape(plane.rows, plane.row), rows[:, : plane.row])
            place = end
        return HostSurface(memory, shape, self.colour)


@dataclass(frozen=True, slots=True)
class Plane:
    """Of a surface: where it begins, how many rows it has, and how many bytes a row has and takes up."""

    at: int
    rows: int
    row: int
    stride: int


def planes_of(name: str, width: int, height: int) -> list[Plane]:
    """GStreamer's own layout of a format."""
    depth = 2 if name == "P010_10LE" else 1
    even, rows, columns = height + height % 2, (height + 1) // 2, (width + 1) // 2
    luma = Plane(0, height, width * depth, _padded(width * depth))
    first = luma.stride * even
    if name != "I420":
        return [luma, Plane(first, rows, 2 * columns * depth, luma.stride)]
    stride = _padded(columns)
    return [luma, Plane(first, rows, columns, stride), Plane(first + stride * rows, rows, columns, stride)]


def whole_planes(planes: list[Plane]) -> list[Plane]:
    """The same without a gap between rows and planes."""
    found, place = [], 0
    for plane in planes:
        found.append(Plane(place, plane.rows, plane.row, plane.row))
        place += plane.rows * plane.row
    return found


def _padded(size: int) -> int:
    return -(-size // 4) * 4


def raw_picture(answer: dict[str, Any], what: str) -> RawPicture:
    """What an answer says, believed only as far as it makes sense. Raises Nonsense, and CameraError for too large."""
    height, width = (whole(answer, side, 1, MAX_PIXELS) for side in ("height", "width"))
    name = str(answer.get("format"))
    if name not in CHANNELS and name not in LAYOUTS:
        raise Nonsense("an unknown format")
    if height * width > MAX_PIXELS:
        raise too_many(what)
    if name in CHANNELS:
        least = height * width * CHANNELS[name]
    else:
        last = planes_of(name, width, height)[-1]
        least = last.at + last.rows * last.stride
    size = whole(answer, "size", least, 8 * height * MAX_PIXELS)
    seen = camera_size(answer.get("seen"))
    colour = colour_of(answer.get("colorimetry"), height if seen is None else seen[1])
    return RawPicture(name, width, height, size, colour, seen)


def colour_of(colorimetry: object, height: int) -> Colour:
    """GStreamer's colorimetry as ours; where it says nothing, or what we don't know, what is usual at that height.

    It is the camera's, in lines: a picture that was made smaller has the colours that it had before.
    """
    parts = NAMED.get(str(colorimetry), str(colorimetry)).split(":")
    usually = usual(height)
    if len(parts) < 2:
        return usually
    matrix = MATRICES.get(parts[1], usually.matrix)
    return Colour(matrix, full_range=parts[0] == "1")
