"""The GPU as calibration and verification use it: named buffers, one stream, arrays up and down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from edgeinfer.errors import EdgeinferError
from edgeinfer.gpu.cuda import Cuda, Driver
from edgeinfer.gpu.memory import DeviceBuffer
from edgeinfer.types import AnyArray

NAME_BYTES = 256


class Device:
    """The current GPU: named buffers on it, and one stream. Calls raise what those of `Cuda` do."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._buffers: dict[str, DeviceBuffer] = {}
        self.stream = cuda.stream()

    def buffer(self, name: str, size: int) -> int:
        """Device address of at least `size` bytes, valid until a larger buffer of the same name is asked for."""
        return self._buffers.setdefault(name, DeviceBuffer(self._cuda)).reserve(max(size, 1))

    def upload(self, name: str, array: AnyArray) -> int:
        """Copies a C-contiguous array into the buffer of that name and returns its device address."""
        address = self.buffer(name, array.nbytes)
        self._cuda.upload(address, array.ctypes.data, array.nbytes, self.stream)
        self.synchronize()
        return address

    def download(self, name: str, shape: tuple[int, ...], dtype: Any) -> AnyArray:
        """The contents of a buffer, as a new array."""
        array = np.empty(shape, dtype)
        self._cuda.download(array.ctypes.data, self._buffers[name].address, array.nbytes, self.stream)
        self.synchronize()
        return array

    def synchronize(self) -> None:
        """Waits for the stream."""
        self._cuda("cudaStreamSynchronize", self.stream)

    def facts(self) -> dict[str, Any]:
        """compute_capability, gpu, sm_count and integrated of device 0, and the version of the CUDA runtime."""
        ask, version = self._cuda.attribute, int(self._cuda("cudaRuntimeGetVersion"))
        return {
            "compute_capability": f"{ask('ComputeCapabilityMajor')}.{ask('ComputeCapabilityMinor')}",
            "gpu": _name(Driver()),
            "sm_count": ask("MultiProcessorCount"),
            "integrated": bool(ask("Integrated")),
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
        }

    def close(self) -> None:
        """Frees buffers and stream."""
        for buffer in self._buffers.values():
            buffer.close()
        self._cuda("cudaStreamDestroy", self.stream)


def _name(driver: Driver) -> str:
    driver("cuInit", 0)
    name = driver("cuDeviceGetName", NAME_BYTES, driver("cuDeviceGet", 0))
    return bytes(name).split(b"\0")[0].decode("utf-8", "replace")


@contextmanager
def open_device() -> Iterator[Device]:
    """The current GPU. Raises UnavailableError where there is none, or no way to reach it."""
    device = Device(Cuda())
    try:
        yield device
    finally:
        with suppress(EdgeinferError):  # after a CUDA error nothing can be freed, and the process ends soon
            device.close()


def free_memory() -> int:
    """Bytes of device memory that nobody uses. Raises what `Cuda` does."""
    return int(Cuda()("cudaMemGetInfo"))
