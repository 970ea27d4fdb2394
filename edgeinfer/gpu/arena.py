"""Device memory for decoded pictures: one allocation a stream, in slots that are used again and again; all bounded."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque

from edgeinfer.errors import EdgeinferError, OutOfMemoryError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.guard.limits import MAX_DEVICE_BYTES, MAX_SOURCE_DEVICE_BYTES

ALIGNMENT = 512
"""A slot begins as cudaMalloc's memory does, or better."""
SHARE = 4
"""All arenas have so large a part of the GPU's memory, a quarter, where that is less than MAX_DEVICE_BYTES."""
REST = 32
LEAST_SLOTS = 3
"""One is written, one waits, one is read."""


class Lease:
    """A slot in use. It goes back when nobody refers to this any more.

    `written`: an event that happens once the picture is there. Whoever reads it has the stream wait for that.
    """

    __slots__ = ("__weakref__", "address", "written")

    def __init__(self, arena: Arena, number: int) -> None:
        self.address, self.written = arena.address + number * arena.slot_bytes, arena.events[number]
        weakref.finalize(self, arena.let_go.append, number).atexit = False  # in any thread, under any lock


class Arena:
    """Slots of `slot_bytes` each. Used by the decoder's thread; leases are let go by any (`let_go`: their numbers)."""

    def __init__(self, arenas: Arenas, cuda: Cuda, slot_bytes: int, slots: int) -> None:
        self.slot_bytes, self.slots, self.size = slot_bytes, slots, slot_bytes * slots
        self.address = int(cuda("cudaMalloc", self.size))
        self.events = [cuda.event() for _ in range(slots)]
        self.let_go: deque[int] = deque()
        self._arenas, self._cuda = arenas, cuda
        self._free = list(range(slots))

    @property
    def has_room(self) -> bool:
        """Whether there is a slot for another picture."""
        self._collect()
        return bool(self._free)

    def take(self) -> Lease | None:
        """A slot to write to, None while all are in use."""
        return Lease(self, self._free.pop()) if self.has_room else None

    def close(self) -> None:
        """No more pictures come. The memory is freed once none is in use."""
        self._arenas.retire(self)

    def free(self) -> bool:
        """Frees the memory of a closed one, where none of it is in use."""
        self._collect()
        if len(self._free) < self.slots:
            return False
        with contextlib.suppress(EdgeinferError):  # after a CUDA error nothing can be freed, and the process ends soon
            self._cuda("cudaFree", self.address)
            for event in self.events:
                self._cuda("cudaEventDestroy", event)
        return True

    def _collect(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._free.append(self.let_go.popleft())


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
        self.settle()
        return self._held

    def make(self, cuda: Cuda, size: int, wanted: int) -> Arena:
        """For so many pictures of `size` bytes, or fewer. What is left is for others, too: one gets a 32nd of it.

        Raises OutOfMemoryError where not even three find room, and what `Cuda` does.
        """
        slot = -(-size // ALIGNMENT) * ALIGNMENT
        self.settle()
        with self._lock:
            left = self._most(cuda) - self._held
            slots = max(LEAST_SLOTS, min(wanted, left // REST // slot, MAX_SOURCE_DEVICE_BYTES // slot))
            if slots * slot > min(left, MAX_SOURCE_DEVICE_BYTES):
                raise OutOfMemoryError(
                    f"pictures of {size} bytes find no room: {self._held >> 20} MiB are theirs already"
                )
            self._held += slots * slot
        try:
            return Arena(self, cuda, slot, slots)
        except BaseException:
            with self._lock:
                self._held -= slots * slot
            raise

    def retire(self, arena: Arena) -> None:
        """Frees a closed one, now or once it may be."""
        with self._lock:
            self._retired.append(arena)
        self.settle()

    def settle(self) -> None:
        """Frees what may be freed by now. Cheap; to be called now and then."""
        if not self._retired:
            return
        with self._lock:
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


arenas = Arenas()
"""The process's own."""
