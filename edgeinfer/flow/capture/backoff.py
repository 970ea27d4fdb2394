"""How long to wait before a source is opened again: exponential, with full jitter.

Full jitter (a uniform draw between nothing and the current ceiling) spreads the cameras of one switch that comes back
over the whole time, see M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

BASE_S = 0.5
CAP_S = 30.0
SILENT_CAP_S = 4.0
"""Beside a peer that does not answer, the waiting is done in the attempt itself: more on top only delays the return."""
LASTING_BASE_S = 30.0
LASTING_CAP_S = 300.0
"""A wrong password mends itself only by a person, and cameras lock accounts after a few of them."""
STEADY_S = 60.0
"""Frames for so long, and what went wrong before is forgotten."""

_MAX_EXPONENT = 16


@dataclass
class Backoff:
    """Delays in seconds, one per failure. Give it a seeded `random` and it is deterministic.

    Failures that need a person are counted apart: a bad line before the first of them is no reason to wait for long.
    """

    random: Random
    _failures: int = 0
    _lasting: int = 0

    def after_failure(self, silent: bool) -> float:
        """The delay after something that may be gone by itself: at most CAP_S, SILENT_CAP_S where nobody answered."""
        ceiling = min(SILENT_CAP_S if silent else CAP_S, BASE_S * 2 ** min(self._failures, _MAX_EXPONENT))
        self._failures += 1
        return self.random.uniform(0.0, ceiling)

    def after_lasting_failure(self) -> float:
        """The delay after what needs a person: from LASTING_BASE_S on, so never at once."""
        ceiling = min(LASTING_CAP_S, LASTING_BASE_S * 2 ** min(self._lasting, _MAX_EXPONENT))
        self._lasting += 1
        return self.random.uniform(max(LASTING_BASE_S, ceiling / 2), ceiling)

    def frames_came(self, for_s: float) -> None:
        """The source gave frames for so long; STEADY_S of them and the delays start from the shortest again."""
        if for_s >= STEADY_S:
            self._failures = self._lasting = 0
