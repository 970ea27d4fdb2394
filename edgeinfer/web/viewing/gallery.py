"""The newest picture of each source, for those who look; without them none is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from edgeinfer.messages import DetectionsMessage, InfoMessage, Message, StatusMessage
from edgeinfer.types import Picture, Result

KEPT_NS = 3_000_000_000
"""So old a picture is not shown any more, and let go: its source gives no newer one."""

SHOWING = ("running", "ended")
"""States in which a source's newest picture is worth to be shown; of one that gives none, none is."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A picture, and what was found in it."""

    message: DetectionsMessage
    picture: Picture
    mark: int
    """Larger for each newer one, of any source: when its message was made, CLOCK_MONOTONIC."""

    @staticmethod
    def of(message: DetectionsMessage, picture: Picture) -> Shot:
        """The picture that a message was made of."""
        return Shot(message, picture, message.t_publish_mono_ns)


@dataclass(slots=True, eq=False)
class Watch:
    """One who looks at some sources, and what there is to tell them. Only the gallery writes it."""

    wake: Callable[[], None]
    news: dict[str, Message]
    sources: frozenset[str] = frozenset()


class Gallery:
    """A sink. `write`, `service`, `forget` and `close` are the publisher's; all else is for any thread.

    Who looks at nothing hears of statuses all the same.
    """

    blocks = False
    pictures = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: list[Watch] = []
        self._lookers: Mapping[str, tuple[Watch, ...]] = {}  # by source; never changed, only replaced
        self._shots: dict[str, Shot] = {}
        self._latched: dict[str, Message] = {}

    @property
    def viewers(self) -> int:
        """How many look, or wait for something to look at."""
        return len(self._watches)

    @property
    def sources(self) -> list[str] | None:
        """Those that the run has, None while that was not said yet."""
        info = self._latched.get("")
        return list(info.sources) if isinstance(info, InfoMessage) else None

    def status(self, source: str) -> StatusMessage | None:
        """A source's newest."""
        status = self._latched.get(source)
        return status if isinstance(status, StatusMessage) else None

    def watch(self, wake: Callable[[], None]) -> Watch:
        """Somebody who looks, at nothing yet; what is latched waits for them. Let it `leave` in the end.

        `wake` is called on the publisher's thread whenever there is something new: it never waits, and never fails.
        """
        with self._lock:
            watch = Watch(wake, dict(self._latched))
            self._watches.append(watch)
        return watch

    def look(self, watch: Watch, sources: Iterable[str]) -> None:
        """At these from now on."""
        with self._lock:
            watch.sources = frozenset(sources)
            self._change()

    def leave(self, watch: Watch) -> None:
        """Looks no more. May be called again."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)
                self._change()

    def newest(self, source: str) -> Shot | None:
        """The newest of a source that somebody looks at, unless it is too old."""
        return self.newest_of([source]).get(source)

    def newest_of(self, sources: Iterable[str]) -> dict[str, Shot]:
        """The same of several; without those that there is none of."""
        shots, oldest = self._shots, time.monotonic_ns() - KEPT_NS
        found = ((source, shots.get(source)) for source in sources)
        return {source: shot for source, shot in found if shot is not None and shot.mark >= oldest}

    def take_news(self, watch: Watch) -> dict[str, Message]:
        """What has changed since this was last asked: the newest `status` of each source, and `info` by no name."""
        if not watch.news:
            return {}
        with self._lock:
            taken, watch.news = watch.news, {}
        return taken

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if isinstance(message, DetectionsMessage):
            if result is not None and message.source in self._lookers:
                self._show(Shot.of(message, result.frame.capture.picture))
        else:
            self._latch(message)

    def service(self) -> None:
        """See `Sink.service`."""
        if self._shots:
            with self._lock:
                self._shots = self.newest_of(list(self._shots))

    def close(self) -> None:
        """See `Sink.close`."""
        with self._lock:
            self._shots = {}

    def forget(self, source: str) -> None:
        """See `Forgetful.forget`. Those who are there already still get its last status."""
        with self._lock:
            self._latched.pop(source, None)
            self._shots.pop(source, None)

    def _show(self, shot: Shot) -> None:
        source = shot.message.source
        with self._lock:
            lookers = self._lookers.get(source, ())
            if lookers:
                self._shots[source] = shot
        for looker in lookers:
            looker.wake()

    def _latch(self, message: Message) -> None:
        key = "" if isinstance(message, InfoMessage) else message.source
        with self._lock:
            before = self._latched.get(key)
            self._latched[key] = message
            if isinstance(message, StatusMessage) and message.state not in SHOWING:
                self._shots.pop(key, None)
            told = list(self._watches) if before is None or _substance(before) != _substance(message) else []
            for watch in told:
                watch.news[key] = message
        for watch in told:
            watch.wake()

    def _change(self) -> None:
        """Whose eyes are on what is another now. Under the lock."""
        lookers: dict[str, list[Watch]] = {}
        for watch in self._watches:
            for source in watch.sources:
                lookers.setdefault(source, []).append(watch)
        self._lookers = {source: tuple(watches) for source, watches in lookers.items()}
        for source in [source for source in self._shots if source not in lookers]:
            del self._shots[source]


def _substance(message: Message) -> Any:
    """What of a message is worth to be told at once; its counters change all the time."""
    if isinstance(message, StatusMessage):
        facts = message.decoder, message.clock_step_s, message.last_crash, message.reload
        return message.state, message.reason, message.stalls, message.reconnects, facts
    return structs.replace(message, t_publish_ns=0, t_publish_mono_ns=0)
