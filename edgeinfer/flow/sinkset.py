"""The sinks of a run: each gets every message, and none harms another."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from edgeinfer.flow.outbox import Outbox
from edgeinfer.guard.printable import printable
from edgeinfer.interfaces import Forgetful, Listening, Sink
from edgeinfer.messages import Message
from edgeinfer.telemetry.snapshot import SinkSnapshot
from edgeinfer.types import Result

log = logging.getLogger(__name__)


class SinkSet:
    """Used by the publisher's thread; what is a property, and `failed`, may be read by any.

    A sink that raises an error is closed and named in `failed`; the others go on. One that may block has an `Outbox`,
    and while a file's result waits for room there the others are served, and `waiting` is called now and then.
    """

    def __init__(self, sinks: Mapping[str, Sink], waiting: Callable[[], None]) -> None:
        self.failed: dict[str, Exception] = {}
        self._waiting = waiting
        self._closing = False
        self._outboxes: dict[str, Outbox] = {}
        self._retired: list[Outbox] = []
        self._sinks: dict[str, Sink] = {}
        self._add(sinks, {})

    @property
    def subscribers(self) -> int | None:
        """Who is connected to the daemon's own socket and listens; None where there is none."""
        sink = self._sinks.get("publish")
        return sink.subscribers if isinstance(sink, Listening) else None

    @property
    def bound(self) -> bool:
        """Whether what is to be published is."""
        return "publish" not in self.failed

    @property
    def unwritten(self) -> dict[str, tuple[int, str]]:
        """Messages that a sink has not taken, and why: a full disk, too slow; "" where they only wait."""
        outboxes = {name: box for name, box in list(self._outboxes.items()) if name not in self.failed}
        counts = {name: (box.lost + box.waiting, box.reason) for name, box in outboxes.items()}
        return {name: lost for name, lost in counts.items() if lost[0]}

    @property
    def troubles(self) -> dict[str, str]:
        """Why, in words, of each sink that loses what it is given now, or has been given up."""
        now = {name: outbox.trouble for name, outbox in list(self._outboxes.items())}
        given_up = {name: reason_of(error) for name, error in list(self.failed.items())}
        return {**{name: why for name, why in now.items() if why}, **given_up}

    @property
    def snapshots(self) -> dict[str, SinkSnapshot]:
        """How each sink is."""
        troubles, outboxes = self.troubles, dict(self._outboxes)
        names = [*list(self._sinks), *(name for name in list(self.failed) if name not in self._sinks)]
        lost = {name: outbox.lost for name, outbox in outboxes.items()}
        return {name: SinkSnapshot(troubles.get(name, ""), lost.get(name, 0)) for name in names}

    def write(self, message: Message, result: Result | None) -> None:
        """Gives a message to all."""
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(message, result)
            except Exception as error:  # whatever a sink does, the others go on
                self._give_up(name, error)

    def service(self) -> None:
        """Lets each do what it does between messages. An error here is one of the publisher's own."""
        for sink in list(self._sinks.values()):
            sink.service()

    def forget(self, source: str) -> None:
        """A source is no longer part of the run."""
        for sink in self._sinks.values():
            if isinstance(sink, Forgetful):
                sink.forget(source)

    def change(self, removed: Sequence[str], added: Mapping[str, Sink]) -> None:
        """Closes some and writes to others from now on; a name may be in both.

        A sink that blocks is left to finish on its own thread; its successor waits for it there.
        """
        before: dict[str, Outbox] = {}
        for name in removed:
            self.failed.pop(name, None)
            outbox = self._outboxes.pop(name, None)
            sink = self._sinks.pop(name, None)
            if outbox is not None:
                outbox.retire()
                before[name] = outbox
            elif sink is not None:
                self._retire(name, sink)
        self._retired = [outbox for outbox in (*self._retired, *before.values()) if outbox.is_alive()]
        self._add(added, before)

    def close(self) -> None:
        """Closes all, and waits for what those that block have still to write."""
        self._closing = True
        for name, sink in self._sinks.items():
            try:
                sink.close()
            except Exception as error:
                self.failed.setdefault(name, error)
        for outbox in self._retired:
            outbox.wait()

    def _add(self, added: Mapping[str, Sink], before: Mapping[str, Outbox]) -> None:
        outboxes = {
            name: Outbox(name, sink, before.get(name), self._while_waiting)
            for name, sink in added.items()
            if sink.blocks
        }
        self._outboxes.update(outboxes)
        self._sinks.update({**added, **outboxes})

    def _while_waiting(self) -> None:
        if not self._closing:
            self._waiting()
            self.service()

    def _retire(self, name: str, sink: Sink) -> None:
        try:
            sink.close()
        except Exception as error:
            log.warning("%s: %s", name, reason_of(error))

    def _give_up(self, name: str, error: Exception) -> None:
        sink = self._sinks.pop(name)
        self.failed[name] = error
        if not isinstance(error, BrokenPipeError):
            log.warning("%s: %s; no more is written to it", name, reason_of(error))
        with contextlib.suppress(Exception):  # it has failed already, and that was said
            sink.close()


def reason_of(error: Exception) -> str:
    """What went wrong, in a few words of one line."""
    text = error.strerror if isinstance(error, OSError) else None
    return printable(text or f"{type(error).__name__}: {error}")
