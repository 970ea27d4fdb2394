"""YUV pictures of any layout, and what the network must be given of them: in plain NumPy, each pixel by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeinfer.config.card import InputCard
from edgeinfer.frames import pool
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.memory import DeviceBuffer
from edgeinfer.pictures.colour import reference_bgr, rounded
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.preprocess.letterbox import geometry
from edgeinfer.types import Colour, Float32, Image, Planes

PLAIN = Colour()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A YUV 4:2:0 picture of random samples in one piece of memory, with `gap` bytes after each row and plane.

    `swapped`: v comes before u. Rows of two-byte samples begin at even places, as everywhere.
    """

    width: int
    height: int
    interleaved: bool = True
    depth: int = 1
    gap: int = 0
    swapped: bool = False
    colour: Colour = PLAIN
    seed: int = 0

    @property
    def chroma(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def size(self) -> int:
        """In bytes."""
        planes, rows = self.planes(0), self.chroma[0]
        return max(planes.u, planes.v) + (rows + 1) * planes.chroma_pitch

    def planes(self, address: int) -> Planes:
        """Of the picture where its memory lies at this address."""
        columns, depth = self.chroma[1], self.depth
        pitch = self.width * depth + self.gap
        step = 2 * depth if self.interleaved else depth
        chroma_pitch = columns * step + self.gap
        first = address + self.height * pitch + self.gap
        second = first + (depth if self.interleaved else self.chroma[0] * chroma_pitch + self.gap)
        u, v = (second, first) if self.swapped else (first, second)
        return Planes(address, u, v, pitch, chroma_pitch, step, depth)

    def memory(self) -> npt.NDArray[np.uint8]:
        """The samples, (size,)."""
        return np.random.default_rng(self.seed).integers(0, 256, self.size, np.uint8)

    def levels(self, memory: npt.NDArray[np.uint8]) -> list[Float32]:
        """Luma, u and v on the scale of 8 bits."""
        planes, (rows, columns) = self.planes(0), self.chroma
        chroma = planes.chroma_pitch, planes.chroma_step
        return [
            self._plane(memory, planes.luma, self.height, self.width, (planes.luma_pitch, self.depth)),
            self._plane(memory, planes.u, rows, columns, chroma),
            self._plane(memory, planes.v, rows, columns, chroma),
        ]

    def _plane(self, memory: Any, start: int, rows: int, columns: int, strides: tuple[int, int]) -> Float32:
        places = start + np.arange(rows)[:, None] * strides[0] + np.arange(columns) * strides[1]
        if self.depth == 1:
            return memory[places].astype(np.float32)  # type: ignore[no-any-return]
        return memory[places + 1] + memory[places] / np.float32(256)  # type: ignore[no-any-return]


class Lying:
    """A surface at an address that somebody else keeps, on the device."""

    on_device = True
    written = 0

    def __init__(self, drawn: Drawn, address: int, memory: npt.NDArray[np.uint8]) -> None:
        self.width, self.height, self.colour = drawn.width, drawn.height, drawn.colour
        self.planes = drawn.planes(address)
        self._drawn, self._memory = drawn, memory

    def image(self) -> Image:
        """See `Surface.image`."""
        return rounded(bgr(self._drawn.levels(self._memory), self.colour, self.height, self.width))

    def sample(self, grid: int) -> bytes:
        """See `Surface.sample`."""
        return bytes(self._memory[:grid])


def on_device(cuda: Cuda, drawn: Drawn, memory: npt.NDArray[np.uint8] | None = None) -> tuple[Lying, DeviceBuffer]:
    """A surface in device memory, of these samples or its own, and that memory, which the caller frees."""
    memory = drawn.memory() if memory is None else memory
    buffer, stream = DeviceBuffer(cuda, memory.nbytes), cuda.stream()
    cuda.upload(buffer.address, memory.ctypes.data, memory.nbytes, stream)
    cuda("cudaStreamSynchronize", stream)
    cuda("cudaStreamDestroy", stream)
    return Lying(drawn, buffer.address, memory), buffer


def as_nv12(image: Image) -> HostSurface:
    """An image of even sides, BT.601, in a block of the pool's."""
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    shape, luma = Shape("nv12", width, height), width * height
    memory = pool.bytes(shape.size)
    memory[:luma] = planar[:luma]
    memory[luma:].reshape(-1, 2)[:] = planar[luma:].reshape(2, -1).T
    return HostSurface(memory, shape, Colour())


def levels_of(surface: HostSurface) -> list[Float32]:
    """Luma, u and v of a surface in host memory, on the scale of 8 bits."""
    scale = np.float32(1 if surface.shape.depth == 1 else 256)
    return [plane / scale for plane in (surface.luma, *surface.chroma)]


def bgr(planes: list[Float32], colour: Colour, height: int, width: int) -> Float32:
    """(height, width, 3), 0 to 255: the picture at that size, bilinear in luma and in chroma."""
    luma, u, v = planes
    ys, xs = positions(height, luma.shape[0]), positions(width, luma.shape[1])
    blue, red = (bilinear(plane, ys / 2 - 0.25, xs / 2) for plane in (u, v))
    return reference_bgr(bilinear(luma, ys, xs), blue, red, colour)


def network_input(planes: list[Float32], colour: Colour, card: InputCard) -> Float32:
    """(3, height, width) of a YUV picture."""
    height, width = planes[0].shape
    box = geometry(width, height, card)
    size = round(height * box.scale_y), round(width * box.scale_x)
    canvas = np.full((card.height, card.width, 3), card.fill, np.float32)
    canvas[box.pad_y : box.pad_y + size[0], box.pad_x : box.pad_x + size[1]] = bgr(planes, colour, *size)
    ordered = canvas if card.color == "bgr" else canvas[..., ::-1]
    normal: Float32 = ((ordered - np.array(card.mean)) / np.array(card.std)).transpose(2, 0, 1).astype(np.float32)
    return normal


def positions(out: int, size: int) -> npt.NDArray[np.float64]:
    """Where the pixels of a row of `out` lie among `size` samples: half-pixel centres."""
    return np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)


def bilinear(plane: Float32, ys: npt.NDArray[np.float64], xs: npt.NDArray[np.float64]) -> Float32:
    """Samples at all pairs of positions; beyond the edge lies what lies at the edge."""
    ys, xs = (np.clip(at, 0, length - 1) for at, length in zip((ys, xs), plane.shape, strict=True))
    top, left = ys.astype(int), xs.astype(int)
    down, right = np.minimum(top + 1, plane.shape[0] - 1), np.minimum(left + 1, plane.shape[1] - 1)
    fy, fx = (ys - top)[:, None], xs - left
    above = plane[top][:, left] * (1 - fx) + plane[top][:, right] * fx
    below = plane[down][:, left] * (1 - fx) + plane[down][:, right] * fx
    found: Float32 = (above * (1 - fy) + below * fy).astype(np.float32)
    return found
