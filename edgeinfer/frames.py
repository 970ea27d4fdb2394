"""Memory for frames that is used again and again: no page faults, and a GPU can be given it once and for all."""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable

import numpy as np

from edgeinfer.types import Image

LIMIT_BYTES = 512 << 20


class Block(mmap.mmap):
    """The memory of one frame, aligned to pages. `on_discard` is called before it is given back to the system."""

    address: int
    on_discard: list[Callable[[], None]]

    @staticmethod
    def new(size: int) -> Block:
        """A block of `size` bytes."""
        block = Block(-1, size)
        block.address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        block.on_discard = []
        return block


class FramePool:
    """Lends images; one that nobody refers to any more comes back by itself. Thread-safe.

    At most `limit` bytes are kept; beyond that images are ordinary arrays.
    """

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._free: dict[int, list[Block]] = defaultdict(list)
        # A finalizer may run wherever the interpreter collects garbage, under our own lock too: it only appends.
        self._returned: deque[tuple[int, Block]] = deque()
        self._lock = threading.Lock()

    def empty(self, height: int, width: int) -> Image:
        """A (height, width, 3) uint8 image with arbitrary contents. The caller owns it and every view of it."""
        shape = (height, width, 3)
        size = math.prod(shape)
        block = self._take(size)
        if block is None:
            return np.empty(shape, np.uint8)
        flat = np.frombuffer(block, np.uint8, size)
        weakref.finalize(flat, self._returned.append, (size, block)).atexit = False
        return flat.reshape(shape)

    def copy(self, image: Image) -> Image:
        """A copy of `image` in the pool's memory."""
        own = self.empty(image.shape[0], image.shape[1])
        np.copyto(own, image)
        return own

    def _take(self, size: int) -> Block | None:
        with self._lock:
            while self._returned:
                returned, block = self._returned.popleft()
                self._free[returned].append(block)
            if self._free[size]:
                return self._free[size].pop()
            while self._held + size > self._limit:
                if not self._discard_one():
                    return None
            self._held += size
            return Block.new(size)

    def _discard_one(self) -> bool:
        """Frees a block that no one uses, of a size that no one asked for lately. False where there is none."""
        for size, blocks in self._free.items():
            if blocks:
                block = blocks.pop()
                for tell in block.on_discard:
                    tell()
                block.close()
                self._held -= size
                return True
        return False


pool = FramePool()
"""The process's own: what a source gives out should come from here."""


def block_of(image: Image) -> Block | None:
    """The pool's block that an image lies in, None for memory from elsewhere."""
    base = image.base
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else None
    return owner if isinstance(owner, Block) else None
