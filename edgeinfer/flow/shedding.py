"""When the GPU's memory does not suffice: smaller batches, then fewer frames, never the end of the process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgeinfer.errors import OutOfMemoryError
from edgeinfer.messages import Reason

log = logging.getLogger(__name__)

TELL_PERIOD_S = 10.0


class Shedding:
    """How large a batch may be for one backend. Used by the inference thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit: int | None = None
        self._next_tell_s = 0.0

    def limit(self, max_batch: int) -> int:
        """The largest batch to try."""
        return max_batch if self._limit is None else min(max_batch, self._limit)

    def lost(self, batch: int, error: OutOfMemoryError) -> Reason | None:
        """A batch did not fit. Returns what to tell, now and then; the counters tell the rest."""
        self._limit = max(1, batch // 2)
        now = self._clock()
        if now < self._next_tell_s:
            return None
        self._next_tell_s = now + TELL_PERIOD_S
        text = f"{error.message}; frames are given up, and batches of at most {self._limit} are tried"
        log.warning("%s", text)
        return Reason("out-of-memory", text)
