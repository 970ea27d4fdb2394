"""CUDA for a process that runs for months: every status goes through one function, no wait is without an end."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeinfer.cuda import access
from edgeinfer.cuda.library import DRIVER
from edgeinfer.cuda.status import check
from edgeinfer.errors import EdgeinferError, FatalError
from edgeinfer.gpu.patience import PATIENCE

POLL_S = 50e-6
LATE = 1 / 16
"""By so much of its time may the end of what is waited for be noticed late, where that is more than POLL_S."""
_PR_SET_TIMERSLACK = 29
_thread = threading.local()


class Cuda:
    """The CUDA runtime of device 0. Raises UnavailableError where no way leads to it: see `access.find`.

    Its calls raise what `status.check` says: UnavailableError, OutOfMemoryError, StickyError or FatalError.
    """

    def __init__(self) -> None:
        self.api = access.find().runtime
        self._not_ready = int(self.api.cudaError_t.cudaErrorNotReady)
        self._to_device = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._to_host = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._on_device = self.api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._quick = _quick()

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the runtime. Returns the first of what it returns beside its status."""
        return _called(self.api, name, arguments)

    def attempt(self, name: str, *arguments: Any) -> bool:
        """Calls a function that may fail without harm. Returns whether it did not."""
        status, *_ = getattr(self.api, name)(*arguments)
        if int(status) != 0:
            self.api.cudaGetLastError()
        return int(status) == 0

    def attribute(self, name: str) -> int:
        """A device attribute by the end of its name, for instance Integrated."""
        return int(self("cudaDeviceGetAttribute", getattr(self.api.cudaDeviceAttr, f"cudaDevAttr{name}"), 0))

    def memory(self) -> tuple[int, int]:
        """Bytes of device memory that nobody uses, and all there are."""
        status, spare, total = self.api.cudaMemGetInfo()
        check("cudaMemGetInfo", status)
        return int(spare), int(total)

    def upload(self, target: int, source: int, size: int, stream: int) -> None:
        """Starts a copy from (pinned) host memory to the device."""
        if self._quick is None:
            self("cudaMemcpyAsync", target, source, size, self._to_device, stream)
        elif status := self._quick.copy(target, source, size, stream):
            check("cuMemcpyHtoDAsync", status)

    def download(self, target: int, source: int, size: int, stream: int) -> None:
        """Starts a copy from the device to (pinned) host memory."""
        self("cudaMemcpyAsync", target, source, size, self._to_host, stream)

    def download_rows(self, target: int, source: int, width: int, rows: int, pitch: int, stream: int) -> None:
        """Starts a copy of `rows` rows of `width` bytes, `pitch` apart on the device and without gaps on the host."""
        self("cudaMemcpy2DAsync", target, width, source, pitch, width, rows, self._to_host, stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Starts a copy on the device."""
        if self._quick is None:
            self("cudaMemcpyAsync", target, source, size, self._on_device, stream)
        elif status := self._quick.copy_device(target, source, size, stream):
            check("cuMemcpyDtoDAsync", status)

    def follow(self, stream: int, event: int) -> None:
        """What is put into the stream from now on waits for the event; nobody waits here."""
        if self._quick is None:
            self("cudaStreamWaitEvent", stream, event, 0)
        elif status := self._quick.follow(stream, event, 0):
            check("cuStreamWaitEvent", status)

    def copy_rows(self, target: int, source: int, width: int, rows: int, pitch: int, stream: int) -> None:
        """Starts a copy on the device of `rows` rows of `width` bytes, `pitch` apart, to where they have no gaps."""
        self("cudaMemcpy2DAsync", target, width, source, pitch, width, rows, self._on_device, stream)

    def stream(self) -> int:
        """A new stream that doesn't wait for the default one."""
        return int(self("cudaStreamCreateWithFlags", self.api.cudaStreamNonBlocking))

    def event(self) -> int:
        """A new event without a time stamp, whose wait sleeps."""
        return int(self("cudaEventCreateWithFlags", self.api.cudaEventDisableTiming | self.api.cudaEventBlockingSync))

    def record(self, event: int, stream: int) -> None:
        """The event happens once everything that is in the stream now has finished."""
        if self._quick is None:
            self("cudaEventRecord", event, stream)
        elif status := self._quick.record(event, stream):
            check("cuEventRecord", status)

    def done(self, event: int) -> bool:
        """Whether everything before the event has finished. Raises where something before it failed."""
        (status,) = self.api.cudaEventQuery(event)
        if int(status) == self._not_ready:
            return False
        check("cudaEventQuery", status)
        return True

    def wait(self, event: int, timeout_s: float, spin: bool = False, since_s: float | None = None) -> bool:
        """Whether the event has happened before the time is up. Sleeps in between, or spins.

        `since_s`: when what is waited for began, by the monotonic clock. The longer ago that is, the longer the sleeps.
        """
        now_s = time.monotonic()
        until_s, since_s = now_s + timeout_s, now_s if since_s is None else since_s
        while not self.done(event):
            now_s = time.monotonic()
            if now_s >= until_s:
                return False
            if not spin:
                time.sleep(min(max(POLL_S, (now_s - since_s) * LATE), until_s - now_s))
        return True

    def finish(self, event: int, stream: int) -> None:
        """Waits for everything in the stream, with an event of the caller's. Raises FatalError where it doesn't end."""
        self.record(event, stream)
        deadline_s = PATIENCE.deadline_s()
        if not self.wait(event, deadline_s):
            raise FatalError(f"the GPU did not finish a batch within {deadline_s:.0f} s", "see dmesg, then restart")

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


class Driver:
    """The CUDA driver's functions, which load and launch kernels. Raises what `Cuda` does."""

    def __init__(self) -> None:
        self._api = access.find().driver

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the driver. Returns the first of what it returns beside its status."""
        return _called(self._api, name, arguments)


def _called(api: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    status, *values = getattr(api, name)(*arguments)
    check(name, status)
    return values[0] if values else None


@dataclass(frozen=True, slots=True)
class _Quick:
    """The driver's calls themselves: each takes a microsecond, and giving the interpreter free for that often costs far
    more. Both only put something into a stream.
    """

    copy: Callable[[int, int, int, int], int]
    copy_device: Callable[[int, int, int, int], int]
    record: Callable[[int, int], int]
    follow: Callable[[int, int, int], int]


def _quick() -> _Quick | None:
    """None where the driver's library isn't to be had."""
    try:
        driver = ctypes.PyDLL(DRIVER)
        copy, device = driver.cuMemcpyHtoDAsync_v2, driver.cuMemcpyDtoDAsync_v2
        record, follow = driver.cuEventRecord, driver.cuStreamWaitEvent
    except (OSError, AttributeError):
        return None
    pointer = ctypes.c_void_p
    copy.argtypes, copy.restype = (ctypes.c_uint64, pointer, ctypes.c_size_t, pointer), ctypes.c_int
    record.argtypes, record.restype = (pointer, pointer), ctypes.c_int
    device.argtypes, device.restype = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, pointer), ctypes.c_int
    follow.argtypes, follow.restype = (pointer, pointer, ctypes.c_uint), ctypes.c_int
    return _Quick(copy, device, record, follow)


def sharpen_timer() -> None:
    """Lets short sleeps of this thread end 1 µs late at most, where 50 is usual (prctl(2), PR_SET_TIMERSLACK).

    Only the first call of a thread does anything.
    """
    if hasattr(_thread, "sharp"):
        return
    _thread.sharp = True
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
