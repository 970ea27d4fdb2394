"""Steps of the wall clock: NTP on a board without a battery, or an operator. Told; nothing here depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_S = 0.5


class ClockWatch:
    """Compares wall and monotonic time. A slewed clock drifts by too little between two looks to be called a step."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, mono_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._offset_ns = self._offset()

    def step_s(self) -> float | None:
        """By how many seconds the wall clock has been set since the last look; None where it was not."""
        before, self._offset_ns = self._offset_ns, self._offset()
        step_s = (self._offset_ns - before) / 1e9
        return step_s if abs(step_s) > STEP_S else None

    def _offset(self) -> int:
        return self._wall_ns() - self._mono_ns()
