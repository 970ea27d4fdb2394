"""Processes that several sources share: who is in which, and what becomes of one in which threads hang.

A source that hangs is given up alone: its talk ends, its thread stays behind. Where too many have, or the process is
gone, its other sources notice that their talks have ended, and are opened again, as any source.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from edgeinfer.errors import TemporaryError
from edgeinfer.guard.limits import MAX_GUESTS, MAX_HUNG_GUESTS
from edgeinfer.isolation import talk
from edgeinfer.isolation.nursery import Forked, Nursery, nursery

log = logging.getLogger(__name__)

LEAVE_S = 1.0
"""So long a thread may take to end, once nobody talks with it. To close a session of NVDEC takes a quarter of it."""
START_S, PAUSE_S = 12.0, 0.1
"""So long a process is tried for, where there can be none at first."""
GONE_S = 0.2
"""A process that ends closes its sockets one after the other: how it ended is known so much later."""


@dataclass(eq=False, slots=True)
class Shared:
    """A process, with the sources in it. `hanging`: those of them whose threads have not come back."""

    forked: Forked
    house: House
    guests: set[Guest] = field(default_factory=set)
    hanging: set[Guest] = field(default_factory=set)
    damaged: int = 0
    ended: str | None = None
    """How it ended, in words; None while it lives."""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.forked.pid

    def invite(self) -> Guest:
        """Room for one more source. Raises talk.Gone, TimeoutError."""
        ours, theirs = talk.pair()
        with theirs:
            try:
                talk.send(self.forked.peer, {"guest": True}, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        guest = Guest(self, ours)
        self.guests.add(guest)
        return guest

    def listen(self) -> bool:
        """Takes note of what it says of itself. False once it is gone."""
        while self.says_something(0.0):
            try:
                message, descriptors = talk.receive(self.forked.peer, 0.0)
            except (talk.Gone, talk.Nonsense):
                return False
            talk.close(descriptors)
            self._note(message)
        return True

    def says_something(self, wait_s: float) -> bool:
        """Whether it has said something, or ended, after waiting for that."""
        return bool(select.select([self.forked.peer], [], [], wait_s)[0])

    def _note(self, message: dict[str, Any]) -> None:
        if "swollen" in message:
            log.warning("process %d, which sources share, had too much memory and has ended", self.pid)
        damaged = message.get("damaged")
        if isinstance(damaged, int) and not self.damaged:
            log.warning("NVDEC met damaged pictures in what process %d decodes: see the cameras' network", self.pid)
        self.damaged = damaged if isinstance(damaged, int) else self.damaged


@dataclass(eq=False, slots=True)
class Guest:
    """See `Process`: a source's part of a process that others share."""

    shared: Shared
    peer: socket.socket
    left: bool = False

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.shared.pid

    def end(self) -> str:
        """See `Process.end`. Its thread ends by itself when nobody talks with it."""
        return self.shared.house.leave(self)

    def is_gone(self) -> bool:
        """Whether its thread has ended, or the process: nothing of it is left that could use our memory."""
        self.left = self.left or self.shared.ended is not None or has_ended(self.peer, 0.0)
        return self.left


class House:
    """All of them. Thread-safe; whoever enters may wait for a process to be made, others hardly at all."""

    def __init__(self, own: Nursery) -> None:
        self._nursery = own
        self._lock = threading.Lock()
        self._shared: list[Shared] = []

    def enter(self, plugin: str) -> Guest:
        """A place for a source of that plugin. Raises TemporaryError where there can be none now."""
        with self._lock:
            for shared in list(self._shared):
                if not shared.listen():
                    self._end(shared)
                elif len(shared.guests) + len(shared.hanging) < MAX_GUESTS:
                    with contextlib.suppress(talk.Gone, TimeoutError):
                        return shared.invite()
            shared = Shared(self._forked(plugin), self)
            self._shared.append(shared)
            try:
                return shared.invite()
            except (talk.Gone, TimeoutError):
                self._end(shared)
                raise TemporaryError("no process for a source: it ended at once") from None

    def heed(self) -> None:
        """Takes note of what they have said of themselves meanwhile, and of those that are gone."""
        with self._lock:
            for shared in list(self._shared):
                if not shared.listen():
                    self._end(shared)

    def leave(self, guest: Guest) -> str:
        """See `Guest.end`. Waits a moment for its thread; a process that nobody needs any more is ended."""
        shared = guest.shared
        with contextlib.suppress(OSError):
            guest.peer.shutdown(socket.SHUT_WR)
        back = has_ended(guest.peer, LEAVE_S)
        if back and shared.ended is None:
            shared.says_something(GONE_S)
        with self._lock:
            shared.guests.discard(guest)
            if shared.ended is None and not shared.listen():
                self._end(shared)
            if shared.ended is not None or back:
                guest.left = True
                guest.peer.close()
            else:
                shared.hanging.add(guest)
            self._judge(shared)
            return shared.ended or ""

    def close(self) -> None:
        """Ends all of them."""
        with self._lock:
            for shared in list(self._shared):
                self._end(shared)

    def _forked(self, plugin: str) -> Forked:
        """A process. A file is opened once: it must not fail because the process that makes others is just starting."""
        end = time.monotonic() + START_S
        while True:
            try:
                return self._nursery.fork(plugin, shared=True)
            except TemporaryError:
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE_S)

    def _judge(self, shared: Shared) -> None:
        """Ends a process that nobody is in, and one in which too many hang."""
        if shared.ended is not None:
            return
        for guest in [guest for guest in shared.hanging if guest.is_gone()]:
            shared.hanging.discard(guest)
            guest.peer.close()
        if len(shared.hanging) >= MAX_HUNG_GUESTS:
            log.warning("%d sources hang in process %d: it is replaced", len(shared.hanging), shared.pid)
            self._end(shared)
        elif not shared.guests:
            self._end(shared)

    def _end(self, shared: Shared) -> None:
        with contextlib.suppress(ValueError):
            self._shared.remove(shared)
        if shared.ended is None:
            shared.ended = shared.forked.end()
        for guest in shared.hanging:
            guest.left = True
            guest.peer.close()
        shared.hanging.clear()


def has_ended(peer: socket.socket, timeout_s: float) -> bool:
    """Whether the other side's end of a talk is closed, after waiting for it. What it still says is passed over."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            _, descriptors = talk.receive(peer, end - time.monotonic())
        except TimeoutError:
            return False
        except talk.Nonsense:
            continue
        except talk.Gone:
            return True
        talk.close(descriptors)


house = House(nursery)
"""The process's own."""
