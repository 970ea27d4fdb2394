"""A thread that looks at the daemon's processes while it runs, and whose own time is not the daemon's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

TICK_S = 0.1


class Sampler(threading.Thread):
    """Calls `looks` again and again, and once more at the end, with whether it is that. `spent_s` is processor time.

    A look that fails ends the sampling, and is raised by `sampling`.
    """

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.spent_s = 0.0
        self._looks: Sequence[Callable[[bool], None]] = ()
        self._end = threading.Event()
        self._error: Exception | None = None

    @contextmanager
    def sampling(self, *looks: Callable[[bool], None]) -> Iterator[None]:
        """Samples for the length of the block."""
        self._looks = looks
        self.start()
        try:
            yield
        finally:
            self._end.set()
            self.join()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """The thread's life."""
        try:
            while not self._end.wait(TICK_S):
                self._look(last=False)
            self._look(last=True)
        except Exception as error:
            self._error = error

    def _look(self, last: bool) -> None:
        for look in self._looks:
            look(last)
        self.spent_s = time.thread_time()
