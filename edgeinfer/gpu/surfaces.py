"""A surface in the GPU's memory: read where it lies, and brought to the host once, when somebody wants BGR."""

from __future__ import annotations

import functools
import threading

import numpy as np
import numpy.typing as npt

from edgeinfer.frames import pool
from edgeinfer.gpu.arena import Lease
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.types import Colour, Image, Planes


class Downloads:
    """Brings device memory to the host, one after the other. Thread-safe. Calls raise what those of `Cuda` do."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._stream, self._event = cuda.stream(), cuda.event()
        self._lock = threading.Lock()

    def rows(self, target: npt.NDArray[np.uint8], address: int, pitch: int, after: int = 0) -> None:
        """Fills `target`, (rows, width) bytes without gaps, of rows that are `pitch` bytes apart, after an event."""
        rows, width = target.shape
        with self._lock:
            if after:
                self._cuda.follow(self._stream, after)
            if width == pitch:
                self._cuda.download(target.ctypes.data, address, target.nbytes, self._stream)
            else:
                self._cuda.download_rows(target.ctypes.data, address, width, rows, pitch, self._stream)
            self._cuda.finish(self._event, self._stream)


@functools.cache
def downloads() -> Downloads:
    """The process's own."""
    return Downloads(Cuda())


class DeviceSurface:
    """See `Surface`. The memory of `lease` is laid out as `shape` says."""

    on_device = True

    def __init__(self, lease: Lease, shape: Shape, colour: Colour) -> None:
        self.shape, self.colour = shape, colour
        self.width, self.height = shape.width, shape.height
        self.lease = lease
        self._lock = threading.Lock()
        self._host: HostSurface | None = None

    @property
    def written(self) -> int:
        """See `Surface.written`."""
        return self.lease.written

    @property
    def planes(self) -> Planes:
        """See `Surface.planes`; addresses on the device."""
        return self.shape.planes(self.lease.address)

    def image(self) -> Image:
        """See `Surface.image`. Raises what `Cuda` does besides."""
        return self.host().image()

    def host(self) -> HostSurface:
        """The same picture in host memory, brought there once. Raises what `image` does."""
        with self._lock:
            if self._host is None:
                memory = pool.bytes(self.shape.size)
                downloads().rows(memory.reshape(1, -1), self.lease.address, self.shape.size, self.lease.written)
                self._host = HostSurface(memory, self.shape, self.colour)
            return self._host

    def sample(self, grid: int) -> bytes:
        """See `Surface.sample`: so many rows come to the host, not the picture."""
        row, step = self.width * self.shape.depth, max(1, self.height // grid)
        rows = np.empty((-(-self.height // step), row), np.uint8)
        downloads().rows(rows, self.lease.address, row * step, self.lease.written)
        samples = rows.view(np.uint16) if self.shape.depth == 2 else rows
        return samples[:, :: max(1, self.width // grid)].tobytes()
