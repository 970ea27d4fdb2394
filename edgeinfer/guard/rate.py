"""Log lines that others can bring about: some of each kind are said, and of the rest how many there were."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeinfer.guard.limits import LOG_LINES, LOG_PERIOD_S


@dataclass(slots=True)
class _Period:
    since_s: float
    said: int = 0
    left_out: int = 0


class RationedLog:
    """Lets `lines` lines of each kind through per period, then counts: "strangers: … and 4,211 more in 60 s".

    Thread-safe. A kind is a few words of the programmer's own; never make one of what others send.
    """

    def __init__(
        self,
        log: logging.Logger,
        lines: int = LOG_LINES,
        period_s: float = LOG_PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._lines, self._period_s, self._clock = log, lines, period_s, clock
        self._lock = threading.Lock()
        self._periods: dict[str, _Period] = {}

    def warning(self, kind: str, text: str, *args: object) -> None:
        """Says it, or counts it."""
        self.settle()
        with self._lock:
            period = self._periods.setdefault(kind, _Period(self._clock()))
            speaks = period.said < self._lines
            if speaks:
                period.said += 1
            else:
                period.left_out += 1
        if speaks:
            self._log.warning(text, *args)

    def settle(self, final: bool = False) -> None:
        """Says how much was left out in the periods that are over; with `final` in all. Call it now and then."""
        now = self._clock()
        with self._lock:
            over = [kind for kind, period in self._periods.items() if final or now - period.since_s >= self._period_s]
            sums = [(kind, self._periods.pop(kind).left_out) for kind in over]
        for kind, count in sums:
            if count:
                self._log.warning("%s: … and %s more in %.0f s", kind, f"{count:,}", self._period_s)
