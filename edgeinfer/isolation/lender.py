"""Our side of the memory that a source's process writes its pictures into: lent, taken as a frame, lent again."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

from edgeinfer.errors import StalledError
from edgeinfer.frames import Block, Store
from edgeinfer.guard.limits import MAX_LENT, MAX_SOURCE_BLOCKS
from edgeinfer.isolation.talk import Nonsense

SHARE = 16
"""A process may hold so large a part of all frames' memory without using it, a sixteenth; or one picture."""


class Lender:
    """A process that writes into a block which is a frame of ours changes its own picture, and nothing else.

    Used by the source's thread; frames are let go by any.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks: dict[int, Block] = {}
        self._lent: set[int] = set()
        self._let_go: deque[int] = deque()
        self._next = 0
        self._closed = False

    def lend(self, size: int) -> tuple[int, int]:
        """Another block: its number, and a descriptor that the caller closes.

        Raises StalledError where enough is lent already, and what `Store.lend` raises.
        """
        unused = sum(len(self._blocks[number]) for number in self._lent)
        share = self._store.limit // SHARE
        if len(self._lent) >= MAX_LENT or len(self._blocks) >= MAX_SOURCE_BLOCKS or (unused and unused + size > share):
            raise StalledError("it holds as much memory for pictures as one source may")
        block, descriptor = self._store.lend(size)
        self._next += 1
        self._blocks[self._next] = block
        self._lent.add(self._next)
        return self._next, descriptor

    def freed(self) -> list[int]:
        """Blocks that nobody here uses any more: the process may, and is to be told so."""
        free = self._collect()
        self._lent.update(free)
        return free

    def take_back(self, numbers: object) -> None:
        """Takes back for good what the process does not need any more. Raises Nonsense for what it does not have."""
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if not isinstance(number, int) or number not in self._lent:
                raise Nonsense("it gives up what it does not have")
            self._lent.discard(number)
            self._store.returned.append(self._blocks.pop(number))

    def pixels(self, number: object, size: int) -> npt.NDArray[np.uint8]:
        """The first `size` bytes of a block that was lent. Ours from now on, until nobody refers to them any more.

        Raises Nonsense where it is not lent, or smaller.
        """
        if not isinstance(number, int) or number not in self._lent or not 0 < size <= len(self._blocks[number]):
            raise Nonsense("a picture that is none")
        self._lent.discard(number)
        flat = np.frombuffer(self._blocks[number], np.uint8, size)
        weakref.finalize(flat, self._came_back, number).atexit = False
        return flat

    def close(self) -> None:
        """Once the process has ended. What is still a frame goes back to the store when it is let go."""
        self._closed = True
        for number in self._lent:
            self._store.returned.append(self._blocks.pop(number))
        self._lent.clear()
        self._retire()

    def _came_back(self, number: int) -> None:
        self._let_go.append(number)
        if self._closed:
            self._retire()

    def _retire(self) -> None:
        for number in self._collect():
            self._store.returned.append(self._blocks.pop(number))

    def _collect(self) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._let_go.popleft())
        return found
