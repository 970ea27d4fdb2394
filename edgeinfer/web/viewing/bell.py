"""How the threads of the data path wake those who wait in the site's own: in one go, however many they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

Wake = Callable[[], None]


class Bell:
    """`ring` may be called by any thread; it waits for nobody and never fails."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """`call_soon` has something called on the site's thread; it raises RuntimeError once that has ended."""
        self._call_soon = call_soon
        self._lock = threading.Lock()
        self._due: dict[Wake, None] = {}

    def ring(self, wake: Wake) -> None:
        """Has `wake` called on the site's thread soon: once, if it was not called since it was last asked for."""
        with self._lock:
            is_first = not self._due
            self._due[wake] = None
        if is_first:
            with contextlib.suppress(RuntimeError):  # the site has ended, and nobody waits
                self._call_soon(self._answer)

    def _answer(self) -> None:
        with self._lock:
            due, self._due = self._due, {}
        for wake in due:
            wake()
