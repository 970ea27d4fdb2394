"""The answer to heat: fewer frames from live sources, evenly, until the machine has cooled down.

A machine that throttles does the same work later; taking less work keeps the latency where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeinfer.messages import Reason

STEPS = (1.0, 0.75, 0.5, 0.35, 0.25)
"""The shares of a live source's frames that are used; the last one is the least."""
WORSE_S = 10.0
"""After so long under a step that did not help comes the next."""
CALM_S = 60.0
"""So long without throttling, and a step is taken back. Longer than WORSE_S, or it would swing."""


class Governor:
    """Holds the share. `update` is called by one thread, `factor` and `reason` are read by others."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.reason: Reason | None = None
        self._step = 0
        self._changed_s = self._hot_s = float("-inf")

    def update(self, throttled: Sequence[str], hottest: str, now_s: float) -> bool:
        """Takes note of what throttles now; `hottest` says how warm it is. `now_s` is monotonic. True for a change."""
        before = self._step
        if throttled:
            self._hot_s = now_s
            if before == 0 or now_s - self._changed_s >= WORSE_S:
                self._step = min(before + 1, len(STEPS) - 1)
        elif before and now_s - max(self._hot_s, self._changed_s) >= CALM_S:
            self._step = before - 1
        if self._step == before:
            return False
        self._changed_s = now_s
        self.factor = STEPS[self._step]
        self.reason = self._told(throttled, hottest)
        return True

    def _told(self, throttled: Sequence[str], hottest: str) -> Reason | None:
        if self._step == 0:
            return None
        why = f"the machine is throttled ({', '.join(throttled)})" if throttled else "the machine is cooling down"
        warm = f", {hottest}" if hottest else ""
        return Reason("throttled", f"{why}{warm}: live sources at {self.factor:.0%} of their frames")


class Thinning:
    """Chooses which frames of one live source to keep, evenly. Used by the source's thread."""

    def __init__(self) -> None:
        self._credit = 0.0

    def keep(self, factor: float) -> bool:
        """Whether the next frame is one of the share `factor`."""
        if factor >= 1:
            self._credit = 0.0
            return True
        self._credit += factor
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
