"""What counts against an engine: a process that loads it and does not end well. Three times is enough."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeinfer.engine.store.cache import Cache, CachedEngine

PROBATION_S = 60.0
"""An engine that has served so long is not what ends the process."""
WITH_RECORD_S = 600.0
"""The same for an engine that has strikes already: it may take minutes each time until it crashes."""


class Probation:
    """A strike when the engine is loaded, taken back when it has served well or its process ends as it should."""

    def __init__(self, cache: Cache, engine: CachedEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self.key = engine.key
        self._cache, self._clock = cache, clock
        self._until_s: float | None = clock() + (WITH_RECORD_S if engine.strikes else PROBATION_S)
        cache.strike(self.key)

    def tick(self) -> None:
        """Called now and then while the engine serves."""
        if self._until_s is not None and self._clock() > self._until_s:
            self.pass_()

    def pass_(self) -> None:
        """The engine is cleared: it has served long enough, or its process ends well."""
        if self._until_s is not None:
            self._until_s = None
            self._cache.absolve(self.key)

    def blame(self) -> None:
        """The engine has failed: its strike stays. Where it was cleared, that was too early."""
        if self._until_s is None:
            self._cache.strike(self.key)
        self._until_s = None
