"""Our side of the memory that a source's process writes its pictures into: lent, taken as a frame, lent again."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeinfer.frames import Block, Store
from edgeinfer.guard.limits import MAX_LENT
from edgeinfer.isolation.talk import Nonsense


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

        Raises Nonsense where enough is lent already, and what `Store.lend` raises.
        """
        if sum(len(self._blocks[number]) == size for number in self._lent) >= MAX_LENT:
            raise Nonsense("it asks for memory again and again")
        block, descriptor = self._store.lend(size)
        self._next += 1
        self._blocks[self._next] = block
        self._lent.add(self._next)
        return self._next, descriptor

    def news(self, size: int | None = None) -> dict[str, Any]:
        """What to tell the process: blocks that it may use again, and those of another size than it wants now."""
        free = self._collect()
        self._lent.update(free)
        drop = [] if size is None else [number for number in self._lent if len(self._blocks[number]) != size]
        for number in drop:
            self._lent.discard(number)
            self._store.returned.append(self._blocks.pop(number))
        return {"free": free, "drop": drop}

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
