"""What a capture thread works on, and how patient it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from edgeinfer.config.settings import LadderConfig
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.guard.limits import MAX_HUNG
from edgeinfer.interfaces import Source
from edgeinfer.telemetry.governor import Governor

_USUAL = LadderConfig()
"""What a source without settings of its own gets; the numbers stand there and nowhere else."""


def age_ns(max_age_ms: float | None) -> int | None:
    """A setting in milliseconds as nanoseconds; None, no limit, stays None."""
    return None if max_age_ms is None else int(max_age_ms * 1e6)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When a live source counts as stalled, lost and hung, in seconds; of a file nothing is expected in time.

    stall: without a frame for so long its status says `stalled`.
    timeout: without a frame for so long it is closed and opened again.
    first: its first frame after it was opened may take so long, and opening it, where `opening` is None.
    grace: a call that has not come back so long after its deadline never will: its thread is given up.
    """

    stall: float = _USUAL.stall_s
    timeout: float = _USUAL.timeout_s
    first: float = 20.0
    grace: float = 5.0
    opening: float | None = None

    def at_rate(self, fps: float) -> Deadlines:
        """The same for a source that gives `fps` frames a second: of a slow one three periods must pass."""
        stall = max(self.stall, 3 / fps) if fps > 0 else self.stall
        timeout = max(self.timeout, 2 * stall)
        return Deadlines(stall, timeout, max(self.first, timeout), self.grace, self.opening)


@dataclass
class Hung:
    """Threads of one source that were given up because a driver never came back to them."""

    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, thread: threading.Thread) -> None:
        """Gives up on a thread."""
        with self._lock:
            self._threads.append(thread)

    def count(self) -> int:
        """How many of them still hang."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            return len(self._threads)

    @property
    def full(self) -> bool:
        """Whether MAX_HUNG threads hang. One more would, too."""
        return self.count() >= MAX_HUNG


@dataclass(frozen=True, slots=True)
class Job:
    """A source to capture from. `limit` ends it after so many results, `max_fps` thins it out.

    reconnect: whether it is opened again after a failure; None leaves it to what was opened: a live source is.
    wait: whether it is waited for where it has never given a frame.
    max_age_ns: a live frame older than that when its turn comes is dropped.
    frozen_s: the same picture for so long is no picture; None accepts it.
    opening_why: what an opening that takes long is busy with, for people.
    governor: says which share of a live source's frames is used.
    """

    name: str
    open: Callable[[], Source]
    ledger: Ledger
    mailbox: Mailbox
    max_fps: float | None = None
    limit: int | None = None
    reconnect: bool | None = _USUAL.reconnect
    wait: bool = _USUAL.wait
    max_age_ns: int | None = age_ns(_USUAL.max_age_ms)
    frozen_s: float | None = _USUAL.frozen_s
    limits: Deadlines = Deadlines()
    opening_why: str = ""
    governor: Governor | None = None
    hung: Hung = field(default_factory=Hung)
    random: Random = field(default_factory=Random)
    clock: Callable[[], int] = time.monotonic_ns
