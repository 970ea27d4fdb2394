"""The newest result of each source, for those who look."""

from __future__ import annotations

from edgeinfer.messages import Message
from edgeinfer.types import Result


class Gallery:
    """A sink."""

    blocks = False
    pictures = True

    @property
    def viewers(self) -> int:
        """How many look."""
        return 0

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    def forget(self, source: str) -> None:
        """See `Forgetful.forget`."""
