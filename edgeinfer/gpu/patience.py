"""How long the GPU may take for a batch: longer beside a build, which may swap everything else on a small board out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class GpuPatience:
    """The deadline of a batch in seconds: `usual_s`, but `long_s` during a build in this process and as long after it.

    Any thread may ask, and several builds may run.
    """

    def __init__(
        self, usual_s: float = 10.0, long_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.usual_s, self.long_s = usual_s, long_s
        self._clock, self._lock = clock, threading.Lock()
        self._builds, self._ended_s = 0, float("-inf")

    @property
    def long(self) -> bool:
        """Whether a build is running, or what it swapped out may still be on its way back."""
        return self._builds > 0 or self._clock() - self._ended_s < self.long_s

    def deadline_s(self) -> float:
        """A batch that takes longer now will not come any more."""
        return self.long_s if self.long else self.usual_s

    @contextmanager
    def building(self) -> Iterator[None]:
        """Around a build."""
        with self._lock:
            self._builds += 1
        try:
            yield
        finally:
            with self._lock:
                self._builds -= 1
                self._ended_s = self._clock()


PATIENCE = GpuPatience()
"""Of this process."""
