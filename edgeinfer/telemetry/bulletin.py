"""What there is to say of the daemon as a whole: posted by whoever knows it, read by whoever shows it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from queue import SimpleQueue

from edgeinfer.messages import Reason

PASSING = ("reloaded", "engine-ready")
"""News of what went well: whatever is amiss counts for more."""


class Bulletin:
    """One board for all. Any thread may post and read, and nobody waits.

    news: how the model, the engine or a reload is getting on. unused: why TensorRT is not used where there is a GPU.
    heat: what is done about heat. shortage: the GPU's memory has not sufficed for some time. sinks: which lose
    messages. fatal: why the process is about to end. facts: fields of the daemon's own `status`.
    """

    def __init__(self) -> None:
        self.news: Reason | None = None
        self.unused: Reason | None = None
        self.heat: Reason | None = None
        self.shortage: Reason | None = None
        self.sinks: Reason | None = None
        self.fatal: Reason | None = None
        self.facts: Mapping[str, object] = {}
        self._flashes: SimpleQueue[Reason] = SimpleQueue()
        self._lock = threading.Lock()

    @property
    def headline(self) -> Reason | None:
        """The one thing that a `status` has room for: the gravest."""
        lasting = None if self.news is None or self.news.code in PASSING else self.news
        return self.fatal or self.shortage or self.sinks or lasting or self.unused or self.news or self.heat

    def note(self, field: str, value: object) -> None:
        """Fills a field of the daemon's own `status` (see `StatusMessage`), from now on."""
        with self._lock:
            self.facts = {**self.facts, field: value}

    def flash(self, reason: Reason) -> None:
        """News that is told in one `status` and not kept."""
        self._flashes.put(reason)

    def take_flashes(self) -> list[Reason]:
        """Those that have not been told yet; whoever takes them tells them."""
        return [self._flashes.get() for _ in range(self._flashes.qsize())]
