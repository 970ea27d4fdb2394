"""A daemon as seen from outside: its latched `info` and `status` messages, put together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import UNSET

from edgeinfer.client import Subscriber
from edgeinfer.messages import DAEMON, InfoMessage, Message, SinkVitals, StatusMessage

GOOD = ("running", "ended")
"""States that need nobody's attention: a file's source comes to its end."""


@dataclass
class RemoteDaemon:
    """What a daemon has said last. A new session starts it over, because its counters do."""

    info: InfoMessage | None = None
    daemon: StatusMessage | None = None
    sources: dict[str, StatusMessage] = field(default_factory=dict)

    def add(self, message: Message) -> None:
        """Takes note of a message."""
        if isinstance(message, InfoMessage):
            if self.info is not None and self.info.session != message.session:
                self.daemon, self.sources = None, {}
            self.info = message
            self.sources = {name: status for name, status in self.sources.items() if name in message.sources}
        elif isinstance(message, StatusMessage) and message.source == DAEMON:
            self.daemon = message
        elif isinstance(message, StatusMessage):
            self.sources[message.source] = message

    @property
    def complete(self) -> bool:
        """Whether the daemon and each of its sources have been heard."""
        return self.info is not None and self.daemon is not None and set(self.info.sources) <= set(self.sources)

    @property
    def good(self) -> bool:
        """Whether the model runs and so does every source, and no sink loses anything."""
        return (
            self.info is not None
            and self.info.backend is not None
            and all(status.state in GOOD for status in self.sources.values())
            and all(sink.ok for sink in self._sinks.values())
        )

    @property
    def _sinks(self) -> Mapping[str, SinkVitals]:
        vitals = UNSET if self.daemon is None else self.daemon.vitals
        return {} if vitals is UNSET or vitals.sinks is UNSET else vitals.sinks


def ask(subscriber: Subscriber, patience_s: float) -> RemoteDaemon:
    """Listens until the overview is complete, a daemon has turned us away, or patience is at its end."""
    overview, end = RemoteDaemon(), time.monotonic() + patience_s
    while not overview.complete and not subscriber.refused and time.monotonic() < end:
        message = subscriber.receive(min(0.1, max(0.0, end - time.monotonic())))
        if message is not None:
            overview.add(message)
    return overview
