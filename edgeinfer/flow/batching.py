"""How large the next batch is, and whether its frames wait for company.

When the GPU's memory does not suffice: smaller batches, then fewer frames, never the end of the process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edgeinfer.config.settings import BatchingConfig
from edgeinfer.errors import OutOfMemoryError
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.interfaces import Backend
from edgeinfer.messages import Reason
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.types import Frame

log = logging.getLogger(__name__)

IDLE_S = 0.05
"""How long a thread with nothing to do waits before it looks around."""
TELL_PERIOD_S = 10.0
"""So often a lack of memory is told; one that lasts for longer is told all the time."""


class Batching:
    """Makes batches of what waits in the mailbox, for one backend at a time. Used by the inference thread.

    `config` says when frames wait for others; it may be set from any thread.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        bulletin: Bulletin,
        config: BatchingConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._mailbox, self._bulletin, self._clock = mailbox, bulletin, clock
        self._fits: int | None = None
        self._short_since_s: float | None = None
        self._next_tell_s = 0.0

    def serve(self, backend: Backend) -> None:
        """Another backend takes over: what was learnt of the one before does not hold for it."""
        self._fits = None
        self.fits()
        self._mailbox.set_depth(backend.lane_depth)

    def limit(self, backend: Backend) -> int:
        """The largest batch to try."""
        return backend.max_batch if self._fits is None else min(backend.max_batch, self._fits)

    def take(self, backend: Backend, in_flight: int, draining: bool) -> list[Frame]:
        """The next batch, empty where nothing waits. Waits for it only while nothing is in flight."""
        busy = in_flight >= backend.slots - 1
        patient = self.config.mode == "throughput" or (self.config.mode == "balanced" and busy)
        company_s = self.config.wait_ms / 1e3 if patient and not draining else 0.0
        return self._mailbox.take(self.limit(backend), 0.0 if in_flight else IDLE_S, company_s)

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._mailbox)

    def close(self) -> list[Frame]:
        """Takes no more frames. Returns those that were still waiting."""
        return self._mailbox.close()

    def lost(self, batch: int, error: OutOfMemoryError) -> None:
        """A batch did not fit: later ones are smaller."""
        self._fits = max(1, batch // 2)
        now = self._clock()
        self._short_since_s = now if self._short_since_s is None else self._short_since_s
        text = f"{error.message}; frames are given up, and batches of at most {self._fits} are tried"
        if now - self._short_since_s >= TELL_PERIOD_S:
            self._bulletin.shortage = Reason("out-of-memory", text)
        if now >= self._next_tell_s:
            self._next_tell_s = now + TELL_PERIOD_S
            log.warning("%s", text)
            self._bulletin.flash(Reason("out-of-memory", text))

    def fits(self) -> None:
        """A batch has come through."""
        if self._short_since_s is not None:
            self._short_since_s = self._bulletin.shortage = None
