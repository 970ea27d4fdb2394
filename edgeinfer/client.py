"""For Python programs that consume detections.

from edgeinfer.client import Subscriber

for message in Subscriber("tcp://127.0.0.1:5555"):
    print(message.source, [found.label for found in message.detections])
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edgeinfer.guard.limits import MAX_DRAINED, MAX_PARTS, MAX_SUBSCRIBED_SOURCES
from edgeinfer.messages import DetectionsMessage, Message, kind_of, topic
from edgeinfer.transport.acceptance import accept
from edgeinfer.transport.connection import Connection
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT

Kind = Literal["detections", "status", "info"]
OTHERS = "_others"
DRAIN_S = 0.05
"""How long `latest` looks for newer messages, where they come faster than they are read."""


class Subscriber:
    """Iterates over typed messages. Not thread-safe; use it as a context manager, or call `close`.

    `lost` counts per source the messages that went missing in transport (gaps in `seq`), `skipped` those that
    `latest=True` passed over for a newer one, `malformed` what was no message of schema v1, was not asked for, or can't
    be true (a box outside of its frame, a number that is none).
    """

    def __init__(  # noqa: PLR0913 (keywords, each with a default)
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        sources: Sequence[str] = (),
        kinds: Sequence[Kind] = ("detections",),
        latest: bool = False,
        timeout_s: float | None = None,
        high_water_mark: int = 1000,
        server_key: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        """Connects at once; the daemon need not be there yet.

        `sources` and `kinds` choose what is received (no sources: all). `latest` gives the newest message per topic and
        skips those it overtook. After `timeout_s` without a message the iteration ends; by default it waits for ever.

        A daemon with CURVE wants `server_key`, its public key or .pub file, and `key`, a .key file of our own whose
        public half is on the daemon's list. Raises EdgeinferError where an endpoint or a key can't be used.
        """
        self.lost: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.malformed = 0
        self._latest = latest
        self._timeout_s = timeout_s
        self._sources, self._kinds = frozenset(sources), frozenset(kinds)
        self._next_seq: dict[str, tuple[str, int]] = {}
        self._pending: dict[tuple[type[Message], str], Message] = {}
        topics = [topic(kind, source) for kind in kinds for source in sources or ("",)]
        self._link = Connection(endpoint, topics, high_water_mark, server_key, key)

    @property
    def refused(self) -> str:
        """Why the daemon turns us away, as far as ZeroMQ tells; empty while it doesn't. We go on trying."""
        return self._link.refused

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive(self._timeout_s)) is not None:
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None after `timeout_s` without one; without a time-out it waits as long as it takes."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if self._pending:
            return self._newest()
        while (message := self._read(deadline)) is None:
            if deadline is not None and time.monotonic() >= deadline:
                return None
        if not self._latest:
            return message
        self._keep(message)
        return self._newest()

    def close(self) -> None:
        """Disconnects."""
        self._link.close()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, deadline: float | None) -> Message | None:
        """One message, or None at the deadline or for what is no message."""
        wait_ms = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
        return self._take(deadline) if self._link.poll(wait_ms) else None

    def _take(self, deadline: float | None) -> Message | None:
        """The message that is there, or None where it is none that was asked for."""
        parts = self._link.read(deadline)
        if parts is None:
            return None
        try:
            message = accept(parts[1]) if len(parts) == MAX_PARTS else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            message = None
        if message is None or not self._asked_for(message):
            self.malformed += 1
            return None
        self._count_gap(message)
        return message

    def _asked_for(self, message: Message) -> bool:
        return kind_of(message) in self._kinds and (not self._sources or message.source in self._sources)

    def _newest(self) -> Message:
        """Drains what has arrived; the message that has waited longest among the newest of each kind and source."""
        end = time.monotonic() + DRAIN_S
        for _ in range(MAX_DRAINED):
            if time.monotonic() >= end or not self._link.poll(0):
                break
            message = self._take(end)
            if message is not None:
                self._keep(message)
        return self._pending.pop(next(iter(self._pending)))

    def _keep(self, message: Message) -> None:
        """The newest of its kind and source, in the place in line of the one that it overtakes."""
        key = (type(message), message.source)
        if key in self._pending:
            _count(self.skipped, message.source)
        elif len(self._pending) >= MAX_SUBSCRIBED_SOURCES:
            _count(self.skipped, self._pending.pop(next(iter(self._pending))).source)
        self._pending[key] = message

    def _count_gap(self, message: Message) -> None:
        if isinstance(message, DetectionsMessage):
            session, expected = self._next_seq.pop(message.source, (message.session, message.seq))
            if session == message.session and message.seq > expected:
                _count(self.lost, message.source, message.seq - expected)
            if len(self._next_seq) >= MAX_SUBSCRIBED_SOURCES:
                del self._next_seq[next(iter(self._next_seq))]  # the one heard of longest ago
            self._next_seq[message.source] = (message.session, message.seq + 1)


def _count(counter: Counter[str], source: str, number: int = 1) -> None:
    """Counts for a source; for those beyond the limit together."""
    counter[source if source in counter or len(counter) < MAX_SUBSCRIBED_SOURCES else OTHERS] += number
