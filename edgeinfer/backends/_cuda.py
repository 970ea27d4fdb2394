"""CUDA for a backend that runs for months: every status goes through one function, buffers are made once."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from edgeinfer.cudastatus import error_of
from edgeinfer.engine.cudart import cuda_runtime
from edgeinfer.errors import EdgeinferError
from edgeinfer.types import AnyArray


class Cuda:
    """The CUDA runtime of device 0. Any error is fatal: after most of them a process can't use its GPU any more."""

    def __init__(self) -> None:
        self._api = cuda_runtime()
        self.not_ready = int(self._api.cudaError_t.cudaErrorNotReady)
        self.to_device = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.to_host = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the runtime. Returns what it returns beside its status. Raises FatalError."""
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            raise self._error(name, status)
        return values[0] if values else None

    def done(self, event: int) -> bool:
        """Whether everything before the event has finished. Raises FatalError where it failed."""
        (status,) = self._api.cudaEventQuery(event)
        if int(status) not in (0, self.not_ready):
            raise self._error("cudaEventQuery", status)
        return int(status) == 0

    def stream(self) -> int:
        """A new stream that doesn't wait for the default one."""
        return int(self("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))

    def event(self) -> int:
        """A new event without a time stamp, whose wait sleeps."""
        return int(self("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming | self._api.cudaEventBlockingSync))

    def _error(self, name: str, status: Any) -> EdgeinferError:
        return error_of(name, int(status), str(getattr(status, "name", status)))


class Pair:
    """A pinned host array and a device buffer of the same size, allocated once, freed by `close`."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: Any) -> None:
        self._cuda = cuda
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._pinned = int(cuda("cudaMallocHost", size))
        self.device = int(cuda("cudaMalloc", size))
        raw = (ctypes.c_uint8 * size).from_address(self._pinned)
        self.host: AnyArray = np.frombuffer(raw, dtype).reshape(shape)

    def upload(self, count: int, stream: int) -> None:
        """Starts copying the first `count` rows to the device."""
        size = self.host[:count].nbytes
        self._cuda("cudaMemcpyAsync", self.device, self._pinned, size, self._cuda.to_device, stream)

    def download(self, count: int, stream: int) -> None:
        """Starts copying the first `count` rows to the host."""
        size = self.host[:count].nbytes
        self._cuda("cudaMemcpyAsync", self._pinned, self.device, size, self._cuda.to_host, stream)

    def close(self) -> None:
        """Frees both. The host array must not be touched any more."""
        self._cuda("cudaFree", self.device)
        self._cuda("cudaFreeHost", self._pinned)
