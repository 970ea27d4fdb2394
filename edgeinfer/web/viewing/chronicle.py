"""What has happened, line by line: made of the status messages that everybody gets."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import UNSET, Struct

from edgeinfer.guard.limits import WEB_EVENTS
from edgeinfer.messages import DAEMON, Message, Reason, StatusMessage
from edgeinfer.types import Result

Kind = Literal["state", "drops", "engine", "reload", "crash", "clock", "sink", "heat"]
Level = Literal["info", "warning", "error"]

DROPS_PERIOD_NS = 10_000_000_000
"""A source that drops frames all the time says so in one line every so often."""

KINDS: dict[str, Kind] = {
    "engine-building": "engine",
    "engine-ready": "engine",
    "engine-failed": "engine",
    "tensorrt-unused": "engine",
    "out-of-memory": "engine",
    "reloaded": "reload",
    "reload-failed": "reload",
    "throttled": "heat",
    "sink-failed": "sink",
    "fatal": "crash",
}
LEVELS: dict[str, Level] = {
    "engine-failed": "error",
    "tensorrt-unused": "warning",
    "out-of-memory": "error",
    "reload-failed": "error",
    "throttled": "warning",
    "sink-failed": "error",
    "fatal": "error",
    "stalled": "warning",
    "reconnecting": "warning",
    "failed": "error",
}
QUIET_DROPS = frozenset({"max_fps", "shutdown"})
"""Frames that are dropped because somebody asked for it."""


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened. `id` grows by one; `code` is one of `edgeinfer/codes.py`."""

    id: int
    t_ns: int
    kind: Kind
    source: str
    code: str
    text: str
    level: Level = "info"


class Chronicle:
    """A sink that keeps the last WEB_EVENTS events. Those who `listen` are called on the thread that writes."""

    blocks = False
    pictures = False

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=WEB_EVENTS)
        self._next_id = 1
        self._lock = threading.Lock()
        self._listeners: dict[int, Callable[[], None]] = {}
        self._before: dict[str, StatusMessage] = {}
        self._drops: dict[str, tuple[int, dict[str, int]]] = {}

    def since(self, last_id: int) -> list[Event]:
        """What has happened after that event; all that is kept where there is no such."""
        with self._lock:
            if last_id >= self._next_id:  # of an earlier run of the daemon
                last_id = 0
            return [event for event in self._events if event.id > last_id]

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """`call` hears of every event, and must not block. Returns what ends that."""
        key = id(call)
        with self._lock:
            self._listeners[key] = call
        return lambda: self._forget_listener(key)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if isinstance(message, StatusMessage):
            self._look(message)

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    def forget(self, source: str) -> None:
        """See `Forgetful.forget`."""
        self._before.pop(source, None)
        self._drops.pop(source, None)

    def _look(self, message: StatusMessage) -> None:
        before = self._before.get(message.source)
        self._before[message.source] = message
        new = list(_of_daemon(before, message) if message.source == DAEMON else self._of_source(before, message))
        for kind, code, text, level in new:
            self._add(message, kind, code, text, level)
        if new:
            for call in list(self._listeners.values()):
                call()

    def _add(self, message: StatusMessage, kind: Kind, code: str, text: str, level: Level) -> None:
        with self._lock:
            self._events.append(
                Event(
                    id=self._next_id,
                    t_ns=message.t_publish_ns,
                    kind=kind,
                    source=message.source,
                    code=code,
                    text=text,
                    level=level,
                )
            )
            self._next_id += 1

    def _of_source(self, before: StatusMessage | None, now: StatusMessage) -> Iterator[_Line]:
        if before is None or (before.state, _code(before.reason)) != (now.state, _code(now.reason)):
            text = now.state if now.reason is None else f"{now.state}: {now.reason.text}"
            yield "state", _code(now.reason) or now.state, text, LEVELS.get(now.state, "info")
        yield from self._dropped(now)

    def _dropped(self, now: StatusMessage) -> Iterator[_Line]:
        told_ns, told = self._drops.get(now.source, (-DROPS_PERIOD_NS, {}))
        if now.t_publish_mono_ns - told_ns < DROPS_PERIOD_NS:
            return
        more = {
            reason: count - told.get(reason, 0)
            for reason, count in now.dropped_by_reason.items()
            if count > told.get(reason, 0) and reason not in QUIET_DROPS
        }
        if more:
            self._drops[now.source] = now.t_publish_mono_ns, dict(now.dropped_by_reason)
        for reason, count in more.items():
            yield "drops", reason, f"{count} {'frame' if count == 1 else 'frames'} dropped: {reason}", "warning"

    def _forget_listener(self, key: int) -> None:
        with self._lock:
            self._listeners.pop(key, None)


_Line = tuple[Kind, str, str, Level]


def _of_daemon(before: StatusMessage | None, now: StatusMessage) -> Iterator[_Line]:
    if before is None or before.state != now.state:
        yield "state", now.state, f"the daemon is {now.state}", LEVELS.get(now.state, "info")
    if now.reason is not None and _is_news(None if before is None else before.reason, now.reason):
        yield KINDS.get(now.reason.code, "state"), now.reason.code, now.reason.text, LEVELS.get(now.reason.code, "info")
    if now.clock_step_s is not UNSET and (before is None or before.clock_step_s != now.clock_step_s):
        yield "clock", "clock", f"the wall clock was set by {now.clock_step_s:+.1f} s", "warning"
    if now.last_crash is not UNSET and (before is None or before.last_crash is UNSET):
        yield "crash", now.last_crash.code, f"an earlier run ended: {now.last_crash.text}", "error"


def _is_news(before: Reason | None, now: Reason) -> bool:
    """How far a build is changes all the time: that it has begun is news, and its end."""
    return before is None or before.code != now.code or (before.text != now.text and now.code != "engine-building")


def _code(reason: Reason | None) -> str:
    return "" if reason is None else reason.code
