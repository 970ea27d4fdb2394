"""Memory on the device and memory that it reaches, each freed by whoever holds it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeinfer.gpu.cuda import Cuda
from edgeinfer.types import AnyArray


class DeviceBuffer:
    """Device memory that grows when more is asked for, and is freed by `close`."""

    def __init__(self, cuda: Cuda, size: int = 0) -> None:
        self._cuda = cuda
        self._size = 0
        self.address = 0
        if size:
            self.reserve(size)

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes; what they held is lost where they had to grow."""
        if size > self._size:
            self.close()
            self.address = int(self._cuda("cudaMalloc", size))
            self._size = size
        return self.address

    def close(self) -> None:
        """Frees the memory."""
        if self.address:
            self._cuda("cudaFree", self.address)
        self.address = self._size = 0

    def __del__(self) -> None:
        """What was only half made for want of memory has nobody who closes it."""
        if self.address:
            self._cuda.attempt("cudaFree", self.address)


class PinnedBuffer:
    """Host memory that the device reaches, as bytes; grows and is freed like `DeviceBuffer`."""

    def __init__(self, cuda: Cuda, size: int = 0) -> None:
        self._cuda = cuda
        self.address = 0
        self.bytes: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        if size:
            self.reserve(size)

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes."""
        if size > self.bytes.nbytes:
            self.close()
            self.address = int(self._cuda("cudaHostAlloc", size, self._cuda.api.cudaHostAllocMapped))
            self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))
        return self.address

    def close(self) -> None:
        """Frees the memory; arrays over it must not be touched any more."""
        if self.address:
            self.bytes = np.empty(0, np.uint8)
            self._cuda("cudaFreeHost", self.address)
        self.address = 0

    def __del__(self) -> None:
        """See `DeviceBuffer`."""
        if self.address:
            self._cuda.attempt("cudaFreeHost", self.address)


class Pair:
    """A device buffer, and pinned host memory of the same size once it is needed; freed by `close`."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: Any) -> None:
        self._cuda = cuda
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._size = int(np.prod(shape)) * self.dtype.itemsize
        self._row = self._size // shape[0]
        self._pinned, self._buffer = PinnedBuffer(cuda), DeviceBuffer(cuda, self._size)
        self.device = self._buffer.address

    @property
    def host(self) -> AnyArray:
        """The host's array, always the same memory."""
        self._pinned.reserve(self._size)
        array: AnyArray = self._pinned.bytes.view(self.dtype).reshape(self.shape)
        return array

    def upload(self, count: int, stream: int) -> None:
        """Starts copying the first `count` rows to the device."""
        self._cuda.upload(self.device, self._pinned.reserve(self._size), count * self._row, stream)

    def download(self, count: int, stream: int) -> None:
        """Starts copying the first `count` rows to the host."""
        self._cuda.download(self._pinned.reserve(self._size), self.device, count * self._row, stream)

    def close(self) -> None:
        """Frees both. The host array must not be touched any more."""
        self._buffer.close()
        self._pinned.close()
