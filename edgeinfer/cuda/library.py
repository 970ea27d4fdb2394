"""CUDA through its own shared libraries, called as cuda-python is: each call gives a tuple, the status first.

For machines that lack cuda-python, or have one for another CUDA. A call lets the interpreter go on while it runs.
Signatures and numbers are those of cuda_runtime_api.h, driver_types.h and cuda.h of CUDA 12 and 13.
"""

# ruff: noqa: N802, N815 (CUDA's own names)

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

INT, UINT, SIZE = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
POINTER, U64, TEXT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p

DRIVER = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class Out:
    """An argument that the function fills: it is no argument here, but stands beside the status."""

    kind: Any


RUNTIME_CALLS: Mapping[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (Out(INT),),
    "cudaRuntimeGetVersion": (Out(INT),),
    "cudaDeviceGetAttribute": (Out(INT), INT, INT),
    "cudaGetLastError": (),
    "cudaMemGetInfo": (Out(SIZE), Out(SIZE)),
    "cudaMalloc": (Out(POINTER), SIZE),
    "cudaFree": (POINTER,),
    "cudaHostAlloc": (Out(POINTER), SIZE, UINT),
    "cudaFreeHost": (POINTER,),
    "cudaHostRegister": (POINTER, SIZE, UINT),
    "cudaHostUnregister": (POINTER,),
    "cudaHostGetDevicePointer": (Out(POINTER), POINTER, UINT),
    "cudaMemcpyAsync": (POINTER, POINTER, SIZE, INT, POINTER),
    "cudaMemcpy2DAsync": (POINTER, SIZE, POINTER, SIZE, SIZE, SIZE, INT, POINTER),
    "cudaMemsetAsync": (POINTER, INT, SIZE, POINTER),
    "cudaStreamCreateWithFlags": (Out(POINTER), UINT),
    "cudaStreamDestroy": (POINTER,),
    "cudaStreamSynchronize": (POINTER,),
    "cudaStreamBeginCapture": (POINTER, INT),
    "cudaStreamEndCapture": (POINTER, Out(POINTER)),
    "cudaEventCreateWithFlags": (Out(POINTER), UINT),
    "cudaEventDestroy": (POINTER,),
    "cudaEventRecord": (POINTER, POINTER),
    "cudaEventQuery": (POINTER,),
    "cudaStreamWaitEvent": (POINTER, POINTER, UINT),
    "cudaGraphInstantiate": (Out(POINTER), POINTER, U64),
    "cudaGraphDestroy": (POINTER,),
    "cudaGraphExecDestroy": (POINTER,),
    "cudaGraphLaunch": (POINTER, POINTER),
}

DRIVER_CALLS: Mapping[str, tuple[Any, ...]] = {
    "cuInit": (UINT,),
    "cuDriverGetVersion": (Out(INT),),
    "cuDeviceGet": (Out(INT), INT),
    "cuModuleLoadData": (Out(POINTER), TEXT),
    "cuModuleUnload": (POINTER,),
    "cuModuleGetFunction": (Out(POINTER), POINTER, TEXT),
    "cuLaunchKernel": (POINTER, *[UINT] * 7, POINTER, POINTER, POINTER),
}


class Status(int):
    """A status that is no success, with CUDA's name for it."""

    name: str


class Error(enum.IntEnum):
    """cudaError_t, as far as it is asked for by name."""

    cudaErrorNotReady = 600


class Direction(enum.IntEnum):
    """cudaMemcpyKind."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class Attribute(enum.IntEnum):
    """cudaDeviceAttr."""

    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrIntegrated = 18
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class CaptureMode(enum.IntEnum):
    """cudaStreamCaptureMode."""

    cudaStreamCaptureModeThreadLocal = 1


class _Library:
    """The functions of a table, each bound to the library's."""

    def __init__(self, path: str, calls: Mapping[str, tuple[Any, ...]]) -> None:
        """Raises OSError where the library can't be loaded, and AttributeError where it lacks a function."""
        self.path = path
        self._library = ctypes.CDLL(path)
        self._calls = {name: self._bound(name, slots) for name, slots in calls.items()}

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        try:
            return self.__dict__["_calls"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    def _bound(self, name: str, slots: tuple[Any, ...]) -> Callable[..., tuple[Any, ...]]:
        function = getattr(self._library, name)
        function.restype = INT
        function.argtypes = [ctypes.POINTER(slot.kind) if isinstance(slot, Out) else slot for slot in slots]
        if not any(isinstance(slot, Out) for slot in slots):
            return lambda *given: (self._status(function(*given)),)

        def call(*given: Any) -> tuple[Any, ...]:
            left = iter(given)
            filled = [slot.kind() if isinstance(slot, Out) else None for slot in slots]
            status = function(*(next(left) if place is None else ctypes.byref(place) for place in filled))
            return (self._status(status), *(place.value or 0 for place in filled if place is not None))

        return call

    def _status(self, number: int) -> int:
        if number == 0:
            return number
        status = Status(number)
        status.name = self._name(number)
        return status

    def _name(self, number: int) -> str:
        return str(number)


class RuntimeLibrary(_Library):
    """A libcudart, in place of `cuda.bindings.runtime`."""

    cudaError_t, cudaMemcpyKind = Error, Direction
    cudaDeviceAttr, cudaStreamCaptureMode = Attribute, CaptureMode
    cudaStreamNonBlocking = 1
    cudaEventBlockingSync, cudaEventDisableTiming = 1, 2
    cudaHostAllocMapped = cudaHostRegisterMapped = 2

    def __init__(self, path: str) -> None:
        """Raises OSError or AttributeError."""
        super().__init__(path, RUNTIME_CALLS)
        self._library.cudaGetErrorName.restype = TEXT

    def _name(self, number: int) -> str:
        return (self._library.cudaGetErrorName(number) or b"unknown").decode("ascii", "replace")


class DriverLibrary(_Library):
    """The CUDA driver, in place of `cuda.bindings.driver`."""

    def __init__(self, path: str = DRIVER) -> None:
        """Raises OSError or AttributeError."""
        super().__init__(path, DRIVER_CALLS)

    def cuDeviceGetName(self, size: int, device: int) -> tuple[int, bytes]:
        """The device's name, of at most `size` bytes."""
        name = ctypes.create_string_buffer(size)
        return self._status(self._library.cuDeviceGetName(name, size, device)), name.value

    def _name(self, number: int) -> str:
        text = TEXT()
        found = self._library.cuGetErrorName(number, ctypes.byref(text)) == 0
        return (text.value or b"unknown").decode("ascii", "replace") if found else "unknown"


def served() -> tuple[int, int] | None:
    """The newest CUDA that the driver serves, major and minor; None where there is no driver that answers.

    Needs no GPU, and makes no context.
    """
    number = ctypes.c_int()
    try:
        status = ctypes.CDLL(DRIVER).cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return divmod(number.value // 10, 100) if status == 0 and number.value > 0 else None
