"""The few CUDA calls that calibration and verification need, through cuda-python."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from edgeinfer.errors import UnavailableError
from edgeinfer.types import AnyArray

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
HINT = "see `edgeinfer doctor`"


class Device:
    """The current GPU: named buffers on it, and one stream. Frees everything on `close`."""

    def __init__(self, cudart: Any) -> None:
        self._cudart = cudart
        self._buffers: dict[str, tuple[int, int]] = {}
        self.stream = int(self._call("cudaStreamCreate"))

    def buffer(self, name: str, size: int) -> int:
        """Device address of at least `size` bytes, valid until a larger buffer of the same name is asked for."""
        held, address = self._buffers.get(name, (0, 0))
        if held < max(size, 1):
            self._free(name)
            address = int(self._call("cudaMalloc", max(size, 1)))
            self._buffers[name] = (size, address)
        return address

    def upload(self, name: str, array: AnyArray) -> int:
        """Copies a C-contiguous array into the buffer of that name and returns its device address."""
        address = self.buffer(name, array.nbytes)
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")
        return address

    def download(self, name: str, shape: tuple[int, ...], dtype: Any) -> AnyArray:
        """The contents of a buffer, as a new array."""
        array = np.empty(shape, dtype)
        self._copy(array.ctypes.data, self._buffers[name][1], array.nbytes, "cudaMemcpyDeviceToHost")
        return array

    def synchronize(self) -> None:
        """Waits for the stream. Raises UnavailableError with CUDA's error."""
        self._call("cudaStreamSynchronize", self.stream)

    def facts(self) -> dict[str, Any]:
        """compute_capability, gpu, sm_count and integrated of device 0, and the version of the CUDA runtime."""
        properties = self._call("cudaGetDeviceProperties", 0)
        version = int(self._call("cudaRuntimeGetVersion"))
        return {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "gpu": properties.name.split(b"\0")[0].decode(),
            "sm_count": int(properties.multiProcessorCount),
            "integrated": bool(properties.integrated),
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
        }

    def close(self) -> None:
        """Frees buffers and stream."""
        for name in list(self._buffers):
            self._free(name)
        self._call("cudaStreamDestroy", self.stream)

    def _free(self, name: str) -> None:
        if name in self._buffers:
            self._call("cudaFree", self._buffers.pop(name)[1])

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        self._call("cudaMemcpy", target, source, size, getattr(self._cudart.cudaMemcpyKind, kind))

    def _call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._cudart, name)(*arguments)
        if int(error) != 0:
            raise UnavailableError(f"{name}: CUDA error {int(error)} ({getattr(error, 'name', error)})", HINT)
        return values[0] if values else None


@contextmanager
def open_device() -> Iterator[Device]:
    """The current GPU. Raises UnavailableError where there is none, or no cuda-python to reach it."""
    device = Device(cuda_runtime())
    try:
        yield device
    finally:
        with suppress(UnavailableError):  # after a CUDA error nothing can be freed, and the process ends soon
            device.close()


def cuda_runtime() -> Any:
    """cuda-python's module of the CUDA runtime. Raises UnavailableError where it is missing."""
    reason = ""
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            reason = reason or str(error)
    raise UnavailableError(f"cuda-python can't be imported: {reason}", "pip install 'edgeinfer[tensorrt]'")
