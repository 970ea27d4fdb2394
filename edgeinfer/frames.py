"""Memory for frames that is used again and again: no page faults, and a GPU can be given it once and for all.

All of it together is bounded. Whoever asks for more waits until somebody lets go of a frame.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import math
import mmap
import os
import sys
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgeinfer.errors import InputError, StalledError
from edgeinfer.guard.limits import MAX_FRAME_BYTES, MAX_IDLE_FRAME_BYTES
from edgeinfer.guard.memory import total_bytes
from edgeinfer.guard.scarcity import is_scarce
from edgeinfer.types import Image

SHARE = 4
"""Frames have so large a part of the memory, a quarter, where that is less than MAX_FRAME_BYTES."""
PATIENCE_S = 2.0
_POLL_S = 0.002
T = TypeVar("T")
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Older Pythons keep a descriptor open for each mapping."""
_MFD_NOEXEC_SEAL = 8
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Block(mmap.mmap):
    """The memory of one frame, aligned to pages. `on_discard` is called before it is given back to the system."""

    address: int
    on_discard: list[Callable[[], None]]
    lent: bool
    """Whether another process may write it: then nobody else is ever given it."""

    @staticmethod
    def new(size: int) -> Block:
        """A block of `size` bytes of our own."""
        return _described(Block(-1, size), lent=False)

    @staticmethod
    def shared(size: int) -> tuple[Block, int]:
        """A block that another process can map by the descriptor, which the caller closes.

        Sealed (memfd_create(2)): were its file cut short, reading it would end this process with SIGBUS.
        """
        descriptor = _memfd(os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return Block.of(descriptor, size), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    @staticmethod
    def of(descriptor: int, size: int) -> Block:
        """The same memory in the other process."""
        return _described(Block(descriptor, size, **_UNTRACKED), lent=True)


def _memfd(flags: int) -> int:
    """Memory that never is a program's. Some systems allow no other (vm.memfd_noexec), older ones don't know of it."""
    try:
        return os.memfd_create("edgeinfer-frame", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("edgeinfer-frame", flags)


def _described(block: Block, lent: bool) -> Block:
    block.address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    block.on_discard, block.lent = [], lent
    return block


class Supply(Protocol):
    """Where the blocks of a pool come from. Thread-safe.

    `returned`: blocks that nobody uses any more. A finalizer may run wherever the interpreter collects garbage, under a
    lock of the supply too: it only appends.
    """

    @property
    def returned(self) -> deque[Block]: ...

    def take(self, size: int) -> Block:
        """A block of `size` bytes, after waiting for one where need be. Raises StalledError, InputError."""


class _Thread(threading.local):
    patient = True


_thread = _Thread()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """In this block the thread waits for no frame of others: where there is no room StalledError comes at once."""
    _thread.patient, before = False, _thread.patient
    try:
        yield
    finally:
        _thread.patient = before


class Store:
    """The blocks of this process: at most `limit` bytes, those that nobody uses included."""

    def __init__(self, limit: int | None = None) -> None:
        """`None` is what the machine's memory allows."""
        self.returned: deque[Block] = deque()
        self._limit = limit
        self._held = 0
        self._free: dict[int, list[Block]] = defaultdict(list)
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """In bytes."""
        if self._limit is None:
            self._limit = min(MAX_FRAME_BYTES, total_bytes() // SHARE)
        return self._limit

    @property
    def held(self) -> int:
        """Bytes that frames take up now, those ready to be used again included."""
        with self._lock:
            self._settle()
            return self._held

    def take(self, size: int) -> Block:
        """See `Supply`."""
        return self._waited(size, lambda: self._free[size].pop() if self._free[size] else self._made(size, Block.new))

    def lend(self, size: int) -> tuple[Block, int]:
        """A fresh block for another process, and its descriptor. Waits and raises as `take` does."""
        return self._waited(size, lambda: self._made(size, Block.shared))

    def _waited(self, size: int, attempt: Callable[[], T | None]) -> T:
        if size > self.limit:
            raise InputError(f"a picture of {size} bytes is more than all frames may hold, {self.limit}")
        end = time.monotonic() + (PATIENCE_S if _thread.patient else 0.0)
        while True:
            with self._lock:
                self._settle()
                found = attempt()
            if found is not None:
                return found
            if time.monotonic() >= end:
                raise StalledError(f"no room for a picture: frames hold {self._held >> 20} MiB, all that they may")
            time.sleep(_POLL_S)

    def _settle(self) -> None:
        while self.returned:
            block = self.returned.popleft()
            if block.lent or self._held > MAX_IDLE_FRAME_BYTES:
                self._discard(block)
            else:
                self._free[len(block)].append(block)

    def _made(self, size: int, make: Callable[[int], T]) -> T | None:
        if not self._reserved(size):
            return None
        try:
            return make(size)
        except OSError as error:
            self._held -= size
            if not is_scarce(error):
                raise
            return None  # memory or descriptors, which others may let go of in a moment

    def _reserved(self, size: int) -> bool:
        """Makes room, if need be of blocks that no one asked for lately; false where all are in use."""
        while self._held + size > self.limit:
            unused = next((blocks for blocks in self._free.values() if blocks), None)
            if unused is None:
                return False
            self._discard(unused.pop())
        self._held += size
        return True

    def _discard(self, block: Block) -> None:
        for tell in block.on_discard:
            tell()
        self._held -= len(block)
        with contextlib.suppress(BufferError):  # its last array is just going, in another thread, and takes it along
            block.close()


class FramePool:
    """Lends images; one that nobody refers to any more comes back by itself. Thread-safe."""

    def __init__(self, supply: Supply) -> None:
        self.supply = supply

    def empty(self, height: int, width: int) -> Image:
        """A (height, width, 3) uint8 image with arbitrary contents. The caller owns it and every view of it.

        Waits for others to let go of theirs. Raises StalledError where nobody does in time, and InputError for a size
        that there can never be room for.
        """
        return self.image(self.supply.take(math.prod((height, width, 3))), height, width)

    def image(self, block: Block, height: int, width: int) -> Image:
        """A block as an image, which returns it to the supply once nobody refers to it any more."""
        return self._lent(block, math.prod((height, width, 3))).reshape(height, width, 3)

    def bytes(self, size: int) -> npt.NDArray[np.uint8]:
        """(size,) uint8 with arbitrary contents, for a picture that is no BGR image. See `empty`."""
        return self._lent(self.supply.take(size), size)

    def _lent(self, block: Block, size: int) -> npt.NDArray[np.uint8]:
        flat = np.frombuffer(block, np.uint8, size)
        weakref.finalize(flat, self.supply.returned.append, block).atexit = False
        return flat

    def copy(self, image: Image) -> Image:
        """A copy of `image` in the pool's memory."""
        own = self.empty(image.shape[0], image.shape[1])
        np.copyto(own, image)
        return own


store = Store()
"""All memory for frames in this process."""
pool = FramePool(store)
"""What a source gives out should come from here; in a process of its own it draws on the parent's store."""


def block_of(memory: npt.NDArray[np.uint8]) -> Block | None:
    """The pool's block that an array lies in, None for memory from elsewhere."""
    base = memory.base
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else None
    return owner if isinstance(owner, Block) else None
