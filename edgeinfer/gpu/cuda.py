"""CUDA for a backend that runs for months: every status goes through one function, no wait is without an end."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeinfer.errors import EdgeinferError, FatalError, UnavailableError
from edgeinfer.gpu.device import cuda_runtime
from edgeinfer.gpu.status import error_of
from edgeinfer.types import AnyArray

DEADLINE_S = 10.0
"""A batch that takes longer will not come any more."""
POLL_S = 50e-6
_PR_SET_TIMERSLACK = 29
DRIVER_MODULES = ("cuda.bindings.driver", "cuda.cuda")


class Cuda:
    """The CUDA runtime of device 0. Any error is fatal: after most of them a process can't use its GPU any more."""

    def __init__(self) -> None:
        self.api = cuda_runtime()
        self._not_ready = int(self.api.cudaError_t.cudaErrorNotReady)
        self._to_device = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._to_host = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy = _quick_copy()

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the runtime. Returns what it returns beside its status. Raises FatalError."""
        status, *values = getattr(self.api, name)(*arguments)
        if int(status) != 0:
            raise self._error(name, status)
        return values[0] if values else None

    def attempt(self, name: str, *arguments: Any) -> bool:
        """Calls a function that may fail without harm. Returns whether it did not."""
        status, *_ = getattr(self.api, name)(*arguments)
        if int(status) != 0:
            self.api.cudaGetLastError()
        return int(status) == 0

    def attribute(self, name: str) -> int:
        """A device attribute by the end of its name, for instance Integrated."""
        return int(self("cudaDeviceGetAttribute", getattr(self.api.cudaDeviceAttr, f"cudaDevAttr{name}"), 0))

    def upload(self, target: int, source: int, size: int, stream: int) -> None:
        """Starts a copy from (pinned) host memory to the device."""
        if self._copy is None:
            self("cudaMemcpyAsync", target, source, size, self._to_device, stream)
        elif status := self._copy(target, source, size, stream):
            raise error_of("cuMemcpyHtoDAsync", status, "")

    def download(self, target: int, source: int, size: int, stream: int) -> None:
        """Starts a copy from the device to (pinned) host memory."""
        self("cudaMemcpyAsync", target, source, size, self._to_host, stream)

    def stream(self) -> int:
        """A new stream that doesn't wait for the default one."""
        return int(self("cudaStreamCreateWithFlags", self.api.cudaStreamNonBlocking))

    def event(self) -> int:
        """A new event without a time stamp, whose wait sleeps."""
        return int(self("cudaEventCreateWithFlags", self.api.cudaEventDisableTiming | self.api.cudaEventBlockingSync))

    def done(self, event: int) -> bool:
        """Whether everything before the event has finished. Raises FatalError where it failed."""
        (status,) = self.api.cudaEventQuery(event)
        if int(status) not in (0, self._not_ready):
            raise self._error("cudaEventQuery", status)
        return int(status) == 0

    def wait(self, event: int, timeout_s: float = DEADLINE_S, spin: bool = False) -> bool:
        """Whether the event has happened before the time is up. Sleeps in between, or spins. Raises FatalError."""
        until_s = time.monotonic() + timeout_s
        while not self.done(event):
            if time.monotonic() >= until_s:
                return False
            if not spin:
                time.sleep(POLL_S)
        return True

    def finish(self, event: int, stream: int) -> None:
        """Waits for everything in the stream, with an event of the caller's. Raises FatalError where it doesn't end."""
        self("cudaEventRecord", event, stream)
        if not self.wait(event):
            raise FatalError(f"the GPU did not finish a batch within {DEADLINE_S:.0f} s", "see dmesg, then restart")

    def captured(self, stream: int, record: Callable[[], None]) -> Any | None:
        """What `record` puts into the stream as an executable graph; None where something in it can't be captured."""
        self("cudaStreamBeginCapture", stream, self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            record()
            whole = True
        except EdgeinferError:
            whole = False
        status, graph = self.api.cudaStreamEndCapture(stream)
        if int(status) != 0 or not whole:
            self.api.cudaGetLastError()
            return None
        status, executable = self.api.cudaGraphInstantiate(graph, 0)
        self.attempt("cudaGraphDestroy", graph)
        if int(status) != 0:
            self.api.cudaGetLastError()
            return None
        return executable

    def _error(self, name: str, status: Any) -> EdgeinferError:
        return error_of(name, int(status), str(getattr(status, "name", status)))


class Driver:
    """The CUDA driver's functions, which load and launch kernels. Raises UnavailableError where it can't be reached."""

    def __init__(self) -> None:
        for name in DRIVER_MODULES:
            try:
                self._api = importlib.import_module(name)
                return
            except ImportError:
                continue
        raise UnavailableError("cuda-python has no module of the CUDA driver", "pip install 'edgeinfer[tensorrt]'")

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the driver. Returns what it returns beside its status. Raises FatalError."""
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            raise error_of(name, int(status), str(getattr(status, "name", status)))
        return values[0] if values else None


def _quick_copy() -> Callable[[int, int, int, int], int] | None:
    """The driver's call itself: it takes a microsecond, and giving the interpreter free for that often costs far more.

    None where the driver's library isn't to be had.
    """
    try:
        function = ctypes.PyDLL("libcuda.so.1").cuMemcpyHtoDAsync_v2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    function.restype = ctypes.c_int
    copy: Callable[[int, int, int, int], int] = function
    return copy


def sharpen_timer() -> None:
    """Lets short sleeps of this thread end 1 µs late at most, where 50 is usual (prctl(2), PR_SET_TIMERSLACK)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)


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
