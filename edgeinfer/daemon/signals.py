"""SIGINT, SIGTERM and SIGHUP: the handler only counts, the run loop acts.

Of the first two, one asks for the end and a second one forces it; SIGHUP asks for a reload.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from edgeinfer.watchdog import early

DRAIN_S = 1.0
"""How long a run may take to end after the first signal."""


class Signals:
    """Counts the signals while the `with` block runs, and puts the old handlers back after it.

    SIGHUP is counted in `hangups`, by whoever reloads on it; it ends any other command.
    """

    def __init__(self, reloads: bool = False) -> None:
        self.received = 0
        self.hangups = 0
        self.last = 0
        self.first_s = 0.0
        self._previous: dict[int, Any] = {}
        self._handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGINT: self._handle,
            signal.SIGTERM: self._handle,
        }
        if reloads:
            self._handlers[signal.SIGHUP] = self._hang_up

    def __enter__(self) -> Signals:
        for number, handler in self._handlers.items():
            self._previous[number] = signal.signal(number, handler)
        early.release()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.first_s = self.first_s or time.monotonic()
        self.received += 1
        self.last = number

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self.hangups += 1


class Patience:
    """Waits for threads: without a signal as long as it takes, DRAIN_S after one, no more after two."""

    def __init__(self, signals: Signals, hurry: bool = False) -> None:
        """`hurry`: something has died, so wait as after a signal."""
        self._signals = signals
        self._hurry_s = time.monotonic() if hurry else 0.0

    def join(self, thread: threading.Thread, share: float = 1.0) -> bool:
        """Waits for the thread's end, after a signal at most until `share` of DRAIN_S is over. Whether it has ended."""
        while thread.is_alive() and not self._over(share):
            thread.join(0.02)
        return not thread.is_alive()

    def _over(self, share: float) -> bool:
        since_s = self._signals.first_s or self._hurry_s
        return self._signals.received > 1 or (since_s > 0 and time.monotonic() - since_s > DRAIN_S * share)
