"""When an engine is tried again that could not be had for want of memory or room: after growing pauses, without end."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeinfer.daemon.selection import Open, may_pass
from edgeinfer.errors import EdgeinferError

PAUSES_S = (60.0, 300.0, 900.0, 3600.0)
"""The last one is for all that follow."""


class Retries:
    """Attempts that have failed since the last success, and when the next is due. From one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = 0
        self._due_s = float("inf")
        self._next: Open | None = None

    def after(self, failure: EdgeinferError, attempt: Open | None) -> str:
        """Plans the next attempt, and says when in words; "" where there will be none."""
        if attempt is None or not may_pass(failure):
            self.end()
            return ""
        pause_s = PAUSES_S[min(self._failed, len(PAUSES_S) - 1)]
        self._failed += 1
        self._due_s, self._next = self._clock() + pause_s, attempt
        return f"next attempt in {pause_s / 60:.0f} min"

    def due(self) -> Open | None:
        """The attempt that is to begin now, once; None while there is none."""
        if self._clock() < self._due_s:
            return None
        attempt, self._next, self._due_s = self._next, None, float("inf")
        return attempt

    def end(self) -> None:
        """No more attempts: it has succeeded, or nobody wants it any more."""
        self._failed, self._due_s, self._next = 0, float("inf"), None
