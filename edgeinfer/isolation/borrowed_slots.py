"""The GPU's memory that the parent lends to a source's process, opened here by CUDA IPC."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import Any

from edgeinfer.errors import EdgeinferError, StalledError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.leases import Lease
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.isolation import talk

AGAIN = 100
"""After so many pictures in host memory the parent is asked again: it may have begun to use the GPU."""


class BorrowedSlots:
    """See `leases.Supply`. A slot is free when neither side uses it. Used by one thread, which talks with the parent.

    `refused`: why there are none, for people; empty while there are.
    """

    def __init__(self, peer: socket.socket) -> None:
        self.refused = ""
        self._peer = peer
        self._cuda: Cuda | None = None
        self._address = self._slot_bytes = self._slots = 0
        self._used_here: set[int] = set()
        self._used_there: set[int] = set()
        self._let_go: deque[int] = deque()
        self._wait = 0
        self._broken = False

    def take(self, size: int) -> Lease | None:
        """See `Supply.take`. The parent is asked for pictures of another size, and where it said no long ago."""
        if self._broken or (self._wait > 0 and not self._address):
            self._wait -= 1
            return None
        if size > self._slot_bytes:
            self._ask(size)
        if not self._address:
            return None
        self._used_here.difference_update(self._collect())
        used = self._used_here | self._used_there
        number = next((number for number in range(self._slots) if number not in used), None)
        if number is None:
            raise StalledError("all memory for its pictures is in use")
        self._used_here.add(number)
        return Lease(self._address + number * self._slot_bytes, number, self._let_go.append)

    def can_give(self, surface: DeviceSurface) -> bool:
        """Whether a picture lies in a slot that the parent does not have already."""
        own = range(self._address, self._address + self._slots * self._slot_bytes)
        return surface.lease.address in own and surface.lease.number not in self._used_there

    def give(self, surface: DeviceSurface) -> dict[str, Any]:
        """What to tell of a picture: it is the parent's until that says that the slot is free."""
        shape, colour = surface.shape, surface.colour
        self._used_there.add(surface.lease.number)
        return {
            "kind": "device",
            "slot": surface.lease.number,
            "layout": shape.layout,
            "width": shape.width,
            "height": shape.height,
            "matrix": colour.matrix,
            "full_range": colour.full_range,
        }

    def take_back(self, order: dict[str, Any]) -> None:
        """What the parent does not use any more."""
        self._used_there.difference_update(order.get("slots", ()))

    def close(self) -> None:
        """Lets go of the memory. Pictures in it must not be written any more."""
        if self._address and self._cuda is not None:
            self._cuda.attempt("cudaIpcCloseMemHandle", self._address)
        self._address = self._slot_bytes = self._slots = 0
        self._used_here, self._used_there, self._let_go = set(), set(), deque()

    def _ask(self, size: int) -> None:
        self.close()
        self._wait = AGAIN
        talk.send(self._peer, {"arena": size})
        answer, descriptors = talk.receive(self._peer, None)
        talk.close(descriptors)
        self.refused = str(answer.get("refused", ""))
        if self.refused:
            return
        try:
            self._cuda = self._cuda or Cuda()
            self._address = self._cuda.opened(bytes.fromhex(answer["handle"]))
        except EdgeinferError as error:
            self._broken, self.refused = True, f"the daemon's memory can't be opened: {error.message}"
            return
        self._slot_bytes, self._slots = answer["slot_bytes"], answer["slots"]

    def _collect(self) -> list[int]:
        """Slots whose pictures were dropped before they were given."""
        found: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._let_go.popleft())
        return found
