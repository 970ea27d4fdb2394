"""Sees when somebody sets the wall clock. Nothing here depends on it; whoever compares our time stamps may."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

STEP_NS = 500_000_000
"""Slewing, as NTP does it, stays far below this between two looks."""


@dataclass
class WallClock:
    """Compares the wall clock with the monotonic one. `step_ns` is the last jump, None while there was none."""

    wall_ns: Callable[[], int] = time.time_ns
    mono_ns: Callable[[], int] = time.monotonic_ns
    step_ns: int | None = None
    _offset_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self._offset_ns = self.wall_ns() - self.mono_ns()

    def look(self) -> int | None:
        """The jump since the last look in nanoseconds, positive where the clock was set forward; None without one."""
        offset_ns = self.wall_ns() - self.mono_ns()
        step_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        if abs(step_ns) < STEP_NS:
            return None
        self.step_ns = step_ns
        return step_ns
