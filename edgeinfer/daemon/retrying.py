"""When an engine is tried again that could not be had for want of memory or room: after growing pauses, without end."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeinfer.engine.errors import BuildCancelledError
from edgeinfer.errors import EdgeinferError, TemporaryError

PAUSES_S = (60.0, 300.0, 900.0, 3600.0)
"""The last one is for all that follow."""


def may_pass(failure: EdgeinferError) -> bool:
    """Whether the same attempt may well succeed later. One that was given up, or took too long, would again."""
    return isinstance(failure, TemporaryError) and not isinstance(failure, BuildCancelledError)


class Retries:
    """Attempts that have failed since the last success, and when the next is due. From one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed = 0
        self._due_s: float | None = None

    def after(self, failure: EdgeinferError) -> str:
        """Plans the next attempt, and says when in words; "" where there will be none."""
        if not may_pass(failure):
            self.end()
            return ""
        pause_s = PAUSES_S[min(self._failed, len(PAUSES_S) - 1)]
        self._failed += 1
        self._due_s = self._clock() + pause_s
        return f"next attempt in {pause_s / 60:.0f} min"

    def due(self) -> bool:
        """Whether the next attempt is to begin now; true once for each."""
        if self._due_s is None or self._clock() < self._due_s:
            return False
        self._due_s = None
        return True

    def end(self) -> None:
        """No more attempts: it has succeeded, or nobody wants it any more."""
        self._failed, self._due_s = 0, None
