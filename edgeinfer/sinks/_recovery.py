"""What a sink loses on a full or failing disk, why, and when it tries again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 0.25, 5.0
"""How long nothing is tried after an error; twice as long after each that follows within CALM_S."""
CALM_S = 60.0
"""So long all must have been well to count as a new trouble. What comes and goes more often is told as often."""


class Recovery:
    """Used by the sink's thread; `trouble`, `reason` and `lost` may be read by any.

    `trouble` says why what comes now is lost, empty while it isn't; `reason` is the last trouble that there was.
    """

    def __init__(self, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`place` is what the log calls it."""
        self.trouble = self.reason = ""
        self.lost = 0
        self._place, self._clock = place, clock
        self._wait_s, self._due_s, self._lost_before = FIRST_S, 0.0, 0
        self._told_s = self._told_well_s = self._failed_s = clock() - CALM_S

    @property
    def due(self) -> bool:
        """Whether to try: all is well, or it has been waited long enough."""
        return not self.trouble or self._clock() >= self._due_s

    def skip(self, count: int = 1) -> None:
        """So many messages are lost, as it is too early to try again."""
        self.lost += count

    def fail(self, error: OSError, count: int = 1) -> None:
        """So many messages could not be written."""
        text, now_s = os.strerror(error.errno) if error.errno else str(error), self._clock()
        if not self.trouble and now_s - self._failed_s >= CALM_S:
            self._wait_s = FIRST_S
        if text != self.reason or now_s - self._told_s >= CALM_S:
            log.warning("%s: %s; what comes is lost until it can be written again", self._place, text)
            self._told_s, self._lost_before = now_s, self.lost
        self.trouble = self.reason = text
        self.lost += count
        self._failed_s, self._due_s = now_s, now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_S)

    def succeed(self) -> None:
        """Something was written."""
        if self.trouble and self._told_s >= self._told_well_s:
            log.warning("%s: is written again; %d messages were lost", self._place, self.lost - self._lost_before)
            self._told_well_s = self._clock()
        self.trouble = ""
