"""Device memory that another process writes pictures into: one allocation a source, in slots, shared by CUDA IPC.

All of them together are bounded. What CUDA shares are whole pages of 2 MiB, so that an allocation takes whole ones:
nothing else of this process lies in them.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from edgeinfer.errors import EdgeinferError, OutOfMemoryError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.leases import Lease
from edgeinfer.guard.limits import MAX_DEVICE_BYTES, MAX_SOURCE_DEVICE_BYTES

PAGE = 2 << 20
ALIGNMENT = 512
"""A slot begins as cudaMalloc's memory does, or better."""
SHARE = 4
"""All arenas have so large a part of the GPU's memory, a quarter, where that is less than MAX_DEVICE_BYTES."""
REST = 32
LEAST_SLOTS = 3
"""One is written, one waits, one is read."""


class Arena:
    """Slots of `slot_bytes` each, numbered from 0. A slot is lent to the process, then ours, then lent again.

    Used by the source's thread; leases are let go by any. `handle` is what the process opens it with.
    """

    def __init__(self, arenas: Arenas, cuda: Cuda, slot_bytes: int, slots: int) -> None:
        self.slot_bytes, self.slots = slot_bytes, slots
        self.size = _rounded(slot_bytes * slots, PAGE)
        self.address = int(cuda("cudaMalloc", self.size))
        try:
            self.handle = cuda.export(self.address)
        except BaseException:
            cuda.attempt("cudaFree", self.address)
            raise
        self._arenas, self._cuda = arenas, cuda
        self._lent = set(range(slots))
        self._let_go: deque[int] = deque()
        self._out = 0
        self._unmapped: Callable[[], bool] | None = None

    @property
    def has_room(self) -> bool:
        """Whether the process has a slot for another picture."""
        return bool(self._lent)

    def freed(self) -> list[int]:
        """Slots that nobody here uses any more: the process may, and is to be told so."""
        free = self._collect()
        self._lent.update(free)
        return free

    def lease(self, number: int) -> Lease:
        """A slot that the process has written. Ours until nobody refers to the lease. Raises KeyError, not lent."""
        self._lent.remove(number)
        self._out += 1
        return Lease(self.address + number * self.slot_bytes, number, self._came_back)

    def close(self, unmapped: Callable[[], bool]) -> None:
        """No more pictures come. The memory is freed once none is used here, and `unmapped` says: nor there."""
        self._unmapped = unmapped
        self._arenas.retire(self)

    def free(self) -> bool:
        """Frees it, of a closed one, where it may be."""
        self._collect()
        if self._out or self._unmapped is None or not self._unmapped():
            return False
        with contextlib.suppress(EdgeinferError):  # after a CUDA error nothing can be freed, and the process ends soon
            self._cuda("cudaFree", self.address)
        return True

    def _came_back(self, number: int) -> None:
        self._let_go.append(number)

    def _collect(self) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._let_go.popleft())
        self._out -= len(found)
        return found


class Arenas:
    """All of this process. Thread-safe."""

    def __init__(self, limit: int | None = None) -> None:
        """`None` is what the GPU's memory allows."""
        self._limit = limit
        self._held = 0
        self._retired: list[Arena] = []
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes that arenas take up now."""
        with self._lock:
            self._settle()
            return self._held

    def make(self, cuda: Cuda, size: int, wanted: int) -> Arena:
        """For so many pictures of `size` bytes, or fewer. What is left is for others, too: one gets a 32nd of it.

        Raises OutOfMemoryError where not even three find room, and what `Cuda` does.
        """
        slot = _rounded(size, ALIGNMENT)
        with self._lock:
            self._settle()
            left = (self._most(cuda) - self._held) // PAGE * PAGE
            slots = max(LEAST_SLOTS, min(wanted, left // REST // slot, MAX_SOURCE_DEVICE_BYTES // slot))
            if slots * slot > min(left, MAX_SOURCE_DEVICE_BYTES):
                raise OutOfMemoryError(
                    f"pictures of {size} bytes find no room: {self._held >> 20} MiB are theirs already"
                )
            total = _rounded(slot * slots, PAGE)
            self._held += total
        try:
            return Arena(self, cuda, slot, slots)
        except BaseException:
            with self._lock:
                self._held -= total
            raise

    def retire(self, arena: Arena) -> None:
        """Frees a closed one, now or when it may be."""
        with self._lock:
            self._retired.append(arena)
            self._settle()

    def _settle(self) -> None:
        waiting, self._retired = self._retired, []
        for arena in waiting:
            if arena.free():
                self._held -= arena.size
            else:
                self._retired.append(arena)

    def _most(self, cuda: Cuda) -> int:
        if self._limit is None:
            _, total = cuda.memory()
            self._limit = min(MAX_DEVICE_BYTES, total // SHARE)
        return self._limit


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


arenas = Arenas()
"""The process's own."""
