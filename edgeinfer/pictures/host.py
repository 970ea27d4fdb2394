"""A surface in host memory: where its planes lie in it, and what becomes of it when somebody wants BGR."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from edgeinfer.frames import pool
from edgeinfer.pictures.colour import matrix
from edgeinfer.types import Colour, Image, Planes

Layout = Literal["nv12", "i420", "p010"]
"""nv12: chroma interleaved. i420: u, then v. p010: as nv12, with two bytes a sample, ten bits in the upper ones."""
Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Shape:
    """A surface without gaps between its rows and planes: luma first, then chroma."""

    layout: Layout
    width: int
    height: int

    @property
    def depth(self) -> int:
        """Bytes a sample."""
        return 2 if self.layout == "p010" else 1

    @property
    def chroma(self) -> tuple[int, int]:
        """Rows and columns of each chroma plane."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def luma_bytes(self) -> int:
        """What the luma takes."""
        return self.width * self.height * self.depth

    @property
    def size(self) -> int:
        """Bytes of the whole surface."""
        rows, columns = self.chroma
        return self.luma_bytes + 2 * rows * columns * self.depth

    def luma(self, memory: npt.NDArray[np.uint8]) -> Samples:
        """(H, W), a view of (size,) uint8."""
        flat = memory[: self.luma_bytes]
        return (flat.view(np.uint16) if self.depth == 2 else flat).reshape(self.height, self.width)

    def chroma_planes(self, memory: npt.NDArray[np.uint8]) -> tuple[Samples, Samples]:
        """u and v, ((H + 1) // 2, (W + 1) // 2) each, views of (size,) uint8."""
        flat = memory[self.luma_bytes :]
        if self.layout == "i420":
            both = flat.reshape(2, *self.chroma)
            return both[0], both[1]
        pairs = (flat.view(np.uint16) if self.depth == 2 else flat).reshape(*self.chroma, 2)
        return pairs[..., 0], pairs[..., 1]

    def planes(self, address: int) -> Planes:
        """Where everything is of a surface that begins at `address`."""
        rows, columns = self.chroma
        u = address + self.luma_bytes
        if self.layout == "i420":
            return Planes(address, u, u + rows * columns, self.width, columns, 1, 1)
        depth = self.depth
        return Planes(address, u, u + depth, self.width * depth, 2 * columns * depth, 2 * depth, depth)


class HostSurface:
    """See `Surface`. `memory` is (size,) uint8 laid out as `shape` says; it is written once, before this is made."""

    on_device = False
    written = 0

    def __init__(self, memory: npt.NDArray[np.uint8], shape: Shape, colour: Colour) -> None:
        memory.flags.writeable = False
        self.memory, self.shape, self.colour = memory, shape, colour
        self.width, self.height = shape.width, shape.height
        self._lock = threading.Lock()
        self._image: Image | None = None

    @property
    def planes(self) -> Planes:
        """See `Surface.planes`."""
        return self.shape.planes(self.memory.ctypes.data)

    @property
    def luma(self) -> Samples:
        """(H, W), a view."""
        return self.shape.luma(self.memory)

    @property
    def chroma(self) -> tuple[Samples, Samples]:
        """u and v, ((H + 1) // 2, (W + 1) // 2) each, views."""
        return self.shape.chroma_planes(self.memory)

    def image(self) -> Image:
        """See `Surface.image`."""
        with self._lock:
            if self._image is None:
                self._image = self._converted()
            return self._image

    def sample(self, grid: int) -> bytes:
        """See `Surface.sample`."""
        return self.luma[:: max(1, self.height // grid), :: max(1, self.width // grid)].tobytes()

    def _converted(self) -> Image:
        image = pool.empty(self.height, self.width)
        planes = self.luma, *(_widened(chroma, self) for chroma in self.chroma)
        yuv = cv2.merge([eight_bits(plane) for plane in planes])
        cv2.transform(yuv, matrix(self.colour), dst=image)
        image.flags.writeable = False
        return image


def eight_bits(samples: Samples) -> npt.NDArray[np.uint8]:
    """Samples on the scale of 8 bits, rounded."""
    if samples.dtype == np.uint8:
        return np.asarray(samples, np.uint8)
    return np.asarray(cv2.convertScaleAbs(samples, alpha=1 / 256), np.uint8)


def _widened(chroma: Samples, surface: HostSurface) -> Any:
    """A chroma plane at the luma's size: column x of it lies on column 2 x, row y between rows 2 y and 2 y + 1."""
    still = np.array([[0.5, 0, 0], [0, 0.5, -0.25]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    whole: Any = np.ascontiguousarray(chroma)
    size = (surface.width, surface.height)
    return cv2.warpAffine(whole, still, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
