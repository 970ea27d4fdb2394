"""Makes processes for sources, all forked from one: it is started with the first, and again when it died."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Any

from edgeinfer.errors import TemporaryError
from edgeinfer.guard.limits import MAX_CHILD_BYTES, MIN_CHILD_BYTES
from edgeinfer.guard.memory import total_bytes
from edgeinfer.isolation import talk
from edgeinfer.isolation.spawned import Spawned, ended_how, spawn

ANSWER_S = 15.0
"""It loads libraries first, from a slow disk perhaps."""
FAILURES = (TimeoutError, talk.Gone, talk.Nonsense)
USUAL = 4
"""Half of the memory is shared by so many processes at least."""
_CODE = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
from edgeinfer.isolation.template import main
main()
"""
"""Only a process with one thread can be forked safely; numpy's library starts others unless told not to."""


def share_of_memory(children: int, total: int) -> int:
    """How many bytes each of so many processes may have."""
    return max(MIN_CHILD_BYTES, min(MAX_CHILD_BYTES, total // 2 // max(USUAL, children)))


@dataclass(frozen=True, slots=True)
class Forked:
    """A process for one source. `peer` is our end of the talk with it."""

    pid: int
    peer: socket.socket
    nursery: Nursery

    def end(self) -> str:
        """Ends it, however it is. Returns how it ended where that was no wish of ours, in words."""
        self.peer.close()
        return self.nursery.end(self.pid)


class Nursery:
    """Thread-safe; everybody waits while one process is being made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._template: Spawned | None = None
        self._living: set[int] = set()

    def fork(self, plugin: str, memory_bytes: int | None = None) -> Forked:
        """A process that will open a source of that plugin. Raises TemporaryError where there can be none now."""
        with self._lock:
            ours, theirs = self._begin()
            share = memory_bytes or share_of_memory(len(self._living) + 1, total_bytes())
            try:
                with theirs:
                    answer = self._ask({"fork": plugin, "memory_bytes": share}, theirs.fileno())
            except FAILURES:
                self._forget()
                ours.close()
                raise TemporaryError("no process for a source: the one that makes them has ended or hangs") from None
            self._living.add(answer["pid"])
            return Forked(answer["pid"], ours, self)

    def end(self, pid: int) -> str:
        """Ends a process of ours and says how it had ended, if it had."""
        with self._lock:
            if pid not in self._living:
                return ""
            self._living.discard(pid)
            try:
                return _in_words(self._ask({"end": pid})["status"])
            except FAILURES:
                self._forget()
                return ""

    def close(self) -> None:
        """Ends all of it."""
        with self._lock:
            self._forget()

    def _begin(self) -> tuple[socket.socket, socket.socket]:
        """The two ends of a talk, once there is a process that can be forked."""
        try:
            if self._template is None:
                self._template = spawn([sys.executable, "-I", "-c", _CODE, json.dumps(sys.path)])
            return talk.pair()
        except OSError as error:
            raise TemporaryError(f"no process for a source: {error.strerror or error}") from None

    def _ask(self, order: dict[str, Any], *descriptors: int) -> dict[str, Any]:
        if self._template is None:
            raise talk.Gone
        talk.send(self._template.peer, order, *descriptors)
        return talk.receive(self._template.peer, ANSWER_S)[0]

    def _forget(self) -> None:
        """Its children end with it."""
        self._living.clear()
        if self._template is not None:
            self._template.kill()
        self._template = None


def _in_words(status: object) -> str:
    """A status as `waitpid` gives it. SIGKILL was us, or the kernel that wants memory back."""
    if not isinstance(status, int):
        return "it hangs in the kernel"
    code = os.waitstatus_to_exitcode(status)
    return "" if code == -signal.SIGKILL else ended_how(code)


nursery = Nursery()
"""The process's own."""
atexit.register(nursery.close)
