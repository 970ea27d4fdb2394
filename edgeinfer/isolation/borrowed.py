"""The parent's memory, into which a source's process writes its pictures."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Any

from edgeinfer.errors import StalledError
from edgeinfer.frames import Block, block_of
from edgeinfer.isolation import talk
from edgeinfer.types import AnyArray

SPARE = 3
"""Blocks that are kept for the next pictures."""


class Borrowed:
    """See `Supply`: blocks that the parent has lent. One is free when neither side uses it. Used by one thread."""

    def __init__(self, peer: socket.socket) -> None:
        self.returned: deque[Block] = deque()
        self._peer = peer
        self._blocks: dict[int, Block] = {}
        self._used_here: set[int] = set()
        self._used_there: set[int] = set()

    def take(self, size: int) -> Block:
        """See `Supply.take`. Where none is free, the parent lends another."""
        for number in self._free():
            if len(self._blocks[number]) == size:
                self._used_here.add(number)
                return self._blocks[number]
        return self._borrow(size)

    def can_give(self, memory: AnyArray) -> bool:
        """Whether a picture's memory is the beginning of a block that the parent does not have already."""
        number = self._number(block_of(memory))
        return (
            number is not None and number not in self._used_there and memory.ctypes.data == self._blocks[number].address
        )

    def give(self, memory: AnyArray) -> tuple[int, list[int]]:
        """The block of a picture, which is the parent's until it says that it is free, and what is not needed any
        more."""
        number = self._number(block_of(memory))
        assert number is not None  # noqa: S101 (see `can_give`)
        self._used_there.add(number)
        return number, self._given_up(keep=SPARE)

    def take_back(self, order: dict[str, Any]) -> None:
        """What the parent does not use any more."""
        self._used_there.difference_update(order.get("free", ()))

    def _borrow(self, size: int) -> Block:
        talk.send(self._peer, {"need": size, "drop": self._given_up(keep=0)})
        answer, descriptors = talk.receive(self._peer, None)
        self.take_back(answer)
        if "lend" not in answer:
            raise StalledError(str(answer.get("refused", "the frames' memory is used up")))
        (descriptor,) = descriptors
        block = Block.of(descriptor, size)
        os.close(descriptor)
        self._blocks[answer["lend"]] = block
        self._used_here.add(answer["lend"])
        return block

    def _given_up(self, keep: int) -> list[int]:
        """Takes leave of all free blocks but so many."""
        free = self._free()
        dropped = free[: max(0, len(free) - keep)]
        for number in dropped:
            del self._blocks[number]
        return dropped

    def _free(self) -> list[int]:
        while self.returned:
            number = self._number(self.returned.popleft())
            if number is not None:
                self._used_here.discard(number)
        return [number for number in self._blocks if number not in self._used_here | self._used_there]

    def _number(self, block: Block | None) -> int | None:
        return next((number for number, known in self._blocks.items() if known is block), None)
