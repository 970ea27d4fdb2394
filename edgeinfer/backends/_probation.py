"""Which engines a process did not survive."""

from __future__ import annotations

import time

from edgeinfer.engine.cache import Cache, CachedEngine

PROBATION_S = 60.0
"""An engine that has served so long is not what ends the process."""


class Probation:
    """Counts against an engine that its process has not ended well while it was young; three times is enough."""

    def __init__(self, cache: Cache, engine: CachedEngine) -> None:
        self._cache, self._key = cache, engine.key
        self._until_s: float | None = time.monotonic() + PROBATION_S
        cache.strike(engine.key)

    def tick(self) -> None:
        """Called now and then while the engine serves."""
        if self._until_s is not None and time.monotonic() > self._until_s:
            self.pass_()

    def pass_(self) -> None:
        """The engine is cleared: it has served long enough, or its process ends well."""
        if self._until_s is not None:
            self._until_s = None
            self._cache.absolve(self._key)
