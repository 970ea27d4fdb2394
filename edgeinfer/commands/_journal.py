"""Every change of a source's or the daemon's state as a journal entry, instead of lines for a terminal."""

from __future__ import annotations

import logging

from edgeinfer.messages import DAEMON, Message, Reason, State, StatusMessage
from edgeinfer.systemd import journal
from edgeinfer.types import Result

log = logging.getLogger(__name__)

LEVELS: dict[State, int] = {"failed": logging.ERROR, "stalled": logging.WARNING, "reconnecting": logging.WARNING}


class Changes:
    """See `Sink`. Writing to the journal may block, so it has a thread of its own."""

    blocks = True
    pictures = False

    def __init__(self) -> None:
        self._known: dict[str, tuple[State, str]] = {}

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. An entry where the state or the reason's code is another than before."""
        if not isinstance(message, StatusMessage):
            return
        state = (message.state, _code(message.reason))
        if self._known.get(message.source) == state:
            return
        self._known[message.source] = state
        text = f": {message.reason.text}" if message.reason else ""
        fields = journal.fields(message.source, state[1] or message.state)
        level = LEVELS.get(message.state, logging.INFO)
        name = "the daemon" if message.source == DAEMON else message.source
        log.log(level, "%s is %s%s", name, message.state, text, extra=fields)

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""


def _code(reason: Reason | None) -> str:
    return reason.code if reason else ""
