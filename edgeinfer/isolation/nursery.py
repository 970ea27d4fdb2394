"""Makes processes for sources, all forked from one: it is started with the first, and again when it died."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeinfer.errors import TemporaryError
from edgeinfer.guard.limits import MAX_CHILD_BYTES, MIN_CHILD_BYTES
from edgeinfer.guard.memory import total_bytes
from edgeinfer.isolation import talk
from edgeinfer.isolation.spawned import Spawned, ended_how, spawn

WAIT_S = 4.0
"""So long a source waits for the others, for the template and for its answer, each; then it tries again later."""
END_S = 1.0
HANGS_S, STARTS_S = 10.0, 60.0
"""A template that has said nothing for so long, though it was asked, is replaced; one that is starting has longer."""
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
    """A process for one source. `peer` is our end of the talk with it, `handle` its pidfd, -1 on an old kernel."""

    pid: int
    peer: socket.socket
    handle: int
    nursery: Nursery

    def end(self) -> str:
        """Ends it, however it is. Returns how it ended where that was no wish of ours, in words."""
        self.peer.close()
        how = self.nursery.end(self)
        if self.handle >= 0:
            with contextlib.suppress(OSError):  # where nobody answered for it; one that has ended has no signal to get
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
        return how


class Nursery:
    """Thread-safe. Nobody waits here for longer than a few seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._template: Spawned | None = None
        self._ready = False
        self._silent_since_s: float | None = None
        self._last_id = 0
        self._living: dict[int, socket.socket] = {}
        self._orphans: set[int] = set()
        self._strays: list[int] = []

    def fork(self, plugin: str, memory_bytes: int | None = None) -> Forked:
        """A process that will open a source of that plugin. Raises TemporaryError where there can be none now."""
        with self._held(WAIT_S):
            self._reap()
            ours, theirs = self._begin()
            share = memory_bytes or share_of_memory(len(self._living) + 1, total_bytes())
            try:
                with theirs:
                    self._see_off_strays()
                    answer = self._ask({"fork": plugin, "memory_bytes": share}, WAIT_S, theirs.fileno())
                if "pid" not in answer:
                    raise TemporaryError(f"no process for a source: {answer.get('refused')}")
            except BaseException:
                ours.close()
                raise
            self._living[answer["pid"]] = ours
            return Forked(answer["pid"], ours, _handle(answer["pid"]), self)

    def end(self, child: Forked) -> str:
        """Ends a process of ours and says how it had ended, if it had."""
        with contextlib.suppress(TemporaryError), self._held(END_S):
            if self._living.get(child.pid) is not child.peer:  # of a template that there was before
                return ""
            del self._living[child.pid]
            return _in_words(self._ask({"end": child.pid}, END_S).get("status"))
        return ""

    def close(self) -> None:
        """Ends all of it."""
        with self._lock:
            self._forget()

    @contextmanager
    def _held(self, timeout_s: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=timeout_s):
            raise TemporaryError("no process for a source: others wait for theirs")
        try:
            yield
        finally:
            self._lock.release()

    def _begin(self) -> tuple[socket.socket, socket.socket]:
        """The two ends of a talk, once there is a process that can be forked."""
        try:
            if self._template is None:
                self._template = spawn([sys.executable, "-I", "-c", _CODE, json.dumps([str(p) for p in sys.path])])
                self._ready, self._silent_since_s = False, time.monotonic()
            if not self._ready:
                self._receive(WAIT_S)
                self._ready = True
            return talk.pair()
        except OSError as error:
            raise TemporaryError(f"no process for a source: {error.strerror or error}") from None

    def _ask(self, order: dict[str, Any], timeout_s: float, *descriptors: int) -> dict[str, Any]:
        """The answer to an order. One to an order before that nobody waited for any more is passed over."""
        if self._template is None:
            return {}
        self._last_id += 1
        if self._silent_since_s is None:
            self._silent_since_s = time.monotonic()
        try:
            talk.send(self._template.peer, {"id": self._last_id, **order}, *descriptors)
        except (talk.Gone, TimeoutError):
            raise self._lost("has ended") from None
        end = time.monotonic() + timeout_s
        while True:
            answer = self._receive(end - time.monotonic())
            if answer.get("id") == self._last_id:
                return answer
            if "pid" in answer:
                self._strays.append(answer["pid"])

    def _see_off_strays(self) -> None:
        """Processes that came when nobody waited for them any more end by themselves; somebody has to take note."""
        strays, self._strays = self._strays, []
        for pid in strays:
            self._ask({"end": pid}, END_S)

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        """What the template says next. Raises TemporaryError; it is forgotten where it has ended, or hangs."""
        assert self._template is not None  # noqa: S101 (whoever asks has made it)
        try:
            answer, _ = talk.receive(self._template.peer, timeout_s)
            self._silent_since_s = None
            return answer
        except TimeoutError:
            limit_s = HANGS_S if self._ready else STARTS_S
            if self._silent_since_s is not None and time.monotonic() - self._silent_since_s > limit_s:
                raise self._lost("hangs") from None
            raise TemporaryError("no process for a source yet: the one that makes them is slow") from None
        except (talk.Gone, talk.Nonsense):
            raise self._lost("has ended") from None

    def _lost(self, how: str) -> TemporaryError:
        self._forget()
        return TemporaryError(f"no process for a source: the one that makes them {how}")

    def _forget(self) -> None:
        """Its children end with it. Where we are the first process of a container, they become ours to wait for."""
        self._orphans |= self._living.keys()
        self._living.clear()
        self._strays.clear()
        if self._template is not None:
            self._template.kill()
        self._template = None
        self._reap()

    def _reap(self) -> None:
        for pid in list(self._orphans):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue  # not yet
            self._orphans.discard(pid)


def _handle(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # Linux before 5.3
        return -1


def _in_words(status: object) -> str:
    """A status as `waitpid` gives it. SIGKILL was us, or the kernel that wants memory back."""
    if not isinstance(status, int):
        return "it hangs in the kernel"
    code = os.waitstatus_to_exitcode(status)
    return "" if code == -signal.SIGKILL else ended_how(code)


nursery = Nursery()
"""The process's own."""
atexit.register(nursery.close)
