"""Tells the service manager how the daemon is: starting, ready, alive, and one line for people."""

from __future__ import annotations

import time
from collections import Counter

from edgeinfer.systemd import notify
from edgeinfer.telemetry.snapshot import DaemonSnapshot

EXTEND_S = 15.0
"""Each extension of the start's timeout; repeated every second, so a start that hangs is found that much later."""
LOADING_S = 600.0
"""A model that loads for longer than this without news is not waited for any more."""
QUIET_READY_S = 10.0
"""Ready without a result once the model has been served so long and no camera has given a frame."""
STATUS_PERIOD_S = 5.0
PERIOD_S = 1.0


class ServiceManager:
    """Sends what has changed, and the heartbeat. Used by one thread."""

    def __init__(self) -> None:
        limit = notify.watchdog_s()
        self._period_s = PERIOD_S if limit is None else min(PERIOD_S, limit / 4)
        self._next_beat_s = self._next_status_s = 0.0
        self._ready = False
        self._shown: tuple[str, ...] = ()
        self._progress: tuple[str, float] = ("", time.monotonic())

    def announce(self, view: DaemonSnapshot) -> None:
        """To be called several times a second while every stage is alive, and only then."""
        now = time.monotonic()
        if not self._ready and is_ready(view):
            self._ready = True
            notify.ready(summary(view))
        if now >= self._next_beat_s:
            self._next_beat_s = now + self._period_s
            notify.watchdog()
            if not self._ready and self._moving(view, now):
                notify.extend_timeout(EXTEND_S)
        states = (view.backend, view.news.code if view.news else "", *(book.state for book in view.sources.values()))
        if now >= self._next_status_s or states != self._shown:
            self._next_status_s, self._shown = now + STATUS_PERIOD_S, states
            notify.status(summary(view))

    def _moving(self, view: DaemonSnapshot, now: float) -> bool:
        """Whether the start makes progress. A build tells its own; loading a model has its limit."""
        text = view.news.text if view.news else ""
        if text != self._progress[0]:
            self._progress = (text, now)
        return now - self._progress[1] < LOADING_S


def is_ready(view: DaemonSnapshot) -> bool:
    """After the first result; or when the model is served and no camera gives anything: that is no fault of ours."""
    if view.serving_s is None:
        return False
    if any(book.inferred for book in view.sources.values()):
        return True
    return view.serving_s >= QUIET_READY_S and not any(book.captured for book in view.sources.values())


def summary(view: DaemonSnapshot) -> str:
    """One line: what runs, how fast, how the sources are, and what else there is to know."""
    news = f"; {view.news.text}" if view.news and view.news.code != "engine-ready" else ""
    if view.serving_s is None:
        return f"loading the model{news}" if not news else news.removeprefix("; ")
    states = Counter(book.state for book in view.sources.values())
    sources = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{view.backend}: {sum(book.fps for book in view.sources.values()):.1f} fps, sources: {sources}{news}"
