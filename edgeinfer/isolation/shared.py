"""What happens in a process that several sources share: a thread for each, all in one CUDA context.

It ends when its parent has had enough of it. A library's words on stdout are counted, never passed on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
from collections import deque

from edgeinfer import frames
from edgeinfer.cuda import video
from edgeinfer.frames import Block
from edgeinfer.guard.limits import MAX_SHARED_BYTES
from edgeinfer.guard.memory import private_bytes, total_bytes
from edgeinfer.isolation import talk
from edgeinfer.isolation.borrowed import Borrowed
from edgeinfer.isolation.inside import visit

DAMAGE = b"Decode Error"
"""How NVIDIA's library begins its word of a damaged picture. Of which stream it does not say."""
_LINE_BUFFERED = 1
LOOK_S = 0.25
SHARE = 4
"""A quarter of the machine's memory."""


class PerThread:
    """See `frames.Supply`: for each thread its own source's memory, and the process's own for any other."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._usual = frames.Store()

    def set(self, supply: frames.Supply) -> None:
        """Of the thread that calls."""
        self._own.supply = supply

    @property
    def returned(self) -> deque[Block]:
        """See `frames.Supply`."""
        return self._supply.returned

    def take(self, size: int) -> Block:
        """See `frames.Supply`."""
        return self._supply.take(size)

    @property
    def _supply(self) -> frames.Supply:
        return getattr(self._own, "supply", self._usual)


def serve_many(control: socket.socket) -> None:
    """Takes in a source for each `guest` that the parent sends, until that is gone."""
    supply = PerThread()
    frames.pool.supply = supply
    video.enable()
    _listen_to_stdout(control)
    threading.Thread(target=_mind_memory, args=(control,), name="memory", daemon=True).start()
    with contextlib.suppress(talk.Gone, talk.Nonsense):
        while True:
            _, descriptors = talk.receive(control, None)
            for descriptor in descriptors:
                peer = socket.socket(fileno=descriptor)
                threading.Thread(target=_serve, args=(peer, supply), name="guest", daemon=True).start()


def _serve(peer: socket.socket, supply: PerThread) -> None:
    """A thread's life. The end of its talk is the parent's sign that nothing of the source is left here."""
    with peer:
        borrowed = Borrowed(peer)
        supply.set(borrowed)
        visit(peer, borrowed)


def most_bytes() -> int:
    """Of private memory."""
    return min(MAX_SHARED_BYTES, total_bytes() // SHARE)


def _mind_memory(control: socket.socket) -> None:
    """Ends this process where it has swollen: the kernel can't hold one to a bound that uses CUDA."""
    while True:
        time.sleep(LOOK_S)
        if (held := private_bytes()) > most_bytes():
            with contextlib.suppress(talk.Gone):
                talk.send(control, {"swollen": held})
            os._exit(1)


def _listen_to_stdout(control: socket.socket) -> None:
    """NVIDIA's library writes there with C's printf. It must never wait for a reader."""
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    library = ctypes.CDLL(None)
    with contextlib.suppress(ValueError, AttributeError):
        stdout = ctypes.c_void_p.in_dll(library, "stdout")
        library.setvbuf(stdout, None, _LINE_BUFFERED, 0)
    threading.Thread(target=_count, args=(reader, control), name="stdout", daemon=True).start()


def _count(reader: int, control: socket.socket) -> None:
    """Tells the parent of damage: the number of pictures so far, each time that it has doubled."""
    damaged, told = 0, 0
    with os.fdopen(reader, "rb", buffering=0) as file, contextlib.suppress(OSError, talk.Gone):
        while chunk := file.read(1 << 16):
            damaged += chunk.count(DAMAGE)
            if damaged > 2 * told:
                told = damaged
                talk.send(control, {"damaged": damaged})
