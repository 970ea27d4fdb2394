"""The newest `info` and `status` messages, and what kind of source each is: what whoever comes now is told first."""

from __future__ import annotations

from typing import Literal

from edgeinfer.messages import DAEMON, InfoMessage, Message, StatusMessage
from edgeinfer.types import Result

SourceKind = Literal["live", "file"]


class Latched:
    """A sink. What it keeps may be read by any thread."""

    blocks = False
    pictures = False

    def __init__(self) -> None:
        self.info: InfoMessage | None = None
        self._statuses: dict[str, StatusMessage] = {}
        self._kinds: dict[str, SourceKind] = {}

    @property
    def daemon(self) -> StatusMessage | None:
        """The daemon's own newest status."""
        return self._statuses.get(DAEMON)

    @property
    def sources(self) -> dict[str, StatusMessage]:
        """The newest status of each source."""
        return {name: status for name, status in dict(self._statuses).items() if name != DAEMON}

    def kind(self, source: str) -> SourceKind | None:
        """Whether a source is a camera or a file; None before its first result."""
        return self._kinds.get(source)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if result is not None:
            self._kinds[message.source] = "live" if result.frame.live else "file"
        elif isinstance(message, StatusMessage):
            self._statuses[message.source] = message
        elif isinstance(message, InfoMessage):
            self.info = message

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    def forget(self, source: str) -> None:
        """See `Forgetful.forget`."""
        self._statuses.pop(source, None)
        self._kinds.pop(source, None)
