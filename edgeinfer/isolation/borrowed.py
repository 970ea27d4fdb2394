"""The parent's memory, into which a source's process writes its pictures."""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Any

from edgeinfer.errors import StalledError
from edgeinfer.frames import Block, block_of
from edgeinfer.isolation import talk
from edgeinfer.types import Image


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
        self._settle()
        for number, block in self._blocks.items():
            if len(block) == size and number not in self._used_here | self._used_there:
                self._used_here.add(number)
                return block
        return self._borrow(size)

    def give(self, image: Image) -> int:
        """The number of an image's block, which is the parent's until it says that it is free."""
        number = self._number(block_of(image))
        self._used_there.add(number)
        return number

    def take_back(self, order: dict[str, Any]) -> None:
        """What the parent does not use any more, and what it wants back for good."""
        self._used_there.difference_update(order.get("free", ()))
        for number in order.get("drop", ()):
            self._used_there.discard(number)
            self._used_here.discard(number)
            del self._blocks[number]

    def _borrow(self, size: int) -> Block:
        talk.send(self._peer, {"need": size})
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

    def _settle(self) -> None:
        while self.returned:
            block = self.returned.popleft()
            if block in self._blocks.values():
                self._used_here.discard(self._number(block))

    def _number(self, block: Block | None) -> int:
        return next(number for number, known in self._blocks.items() if known is block)
