"""The publisher thread: turns results into messages, keeps `status` and `info` current, and owns every sink."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.compose import Identity, detections_message, info_message
from edgeinfer.flow.sinkset import SinkSet
from edgeinfer.flow.stage import Stage
from edgeinfer.flow.statistics import Statistics
from edgeinfer.flow.statuses import Statuses
from edgeinfer.guard.limits import PUBLISHER_RESULTS
from edgeinfer.interfaces import Sink
from edgeinfer.messages import ModelInfo, Reason
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.types import Result

log = logging.getLogger(__name__)

QUEUE_DEPTH = PUBLISHER_RESULTS
_TICK_S = 0.05


class Publisher(Stage):
    """Takes results from the inference thread and messages them to all `sinks`.

    `error` is a bug that ended the thread.
    """

    def __init__(
        self,
        identity: Identity,
        ledgers: Mapping[str, Ledger],
        sinks: Mapping[str, Sink],
        stats: Statistics,
        bulletin: Bulletin,
        picture: Callable[[], DaemonSnapshot],
    ) -> None:
        """`picture` gives the daemon as it is, for its own `status`; it is called on this thread."""
        super().__init__("publisher")
        self.sinks = SinkSet(sinks, self.heart.beat)
        self._identity, self._stats, self._bulletin = identity, stats, bulletin
        self._statuses = Statuses(identity.session, ledgers, bulletin, picture)
        self._backend: tuple[str | None, Mapping[str, str]] = (None, {})
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._queue: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._closing, self._info_due = threading.Event(), threading.Event()
        self._info_due.set()

    def set_backend(self, model: ModelInfo, name: str, versions: Mapping[str, str]) -> None:
        """Tells which model runs now, and on what; `info` is published again. From the main thread."""
        self._identity = replace(self._identity, model=model)
        self._backend = (name, versions)
        self._info_due.set()

    def set_sources(self, ledgers: Mapping[str, Ledger], all_ledgers: Sequence[Ledger]) -> None:
        """Tells which sources there are now; those that are gone get their last `status`. From the main thread.

        `all_ledgers` counts those too.
        """
        self._identity = replace(self._identity, sources=tuple(ledgers))
        self._orders.put(lambda: self._change_sources(dict(ledgers), list(all_ledgers)))

    def change_sinks(self, removed: Sequence[str], added: Mapping[str, Sink]) -> None:
        """Closes some sinks and writes to others from now on; a name may be in both. From the main thread."""
        self._orders.put(lambda: self._change_sinks(removed, added))

    def put(self, result: Result) -> None:
        """Hands a result over. Only while it is not `full`."""
        self._queue.put(result)

    @property
    def full(self) -> bool:
        """Whether the next result would have to wait."""
        return self._queue.qsize() >= QUEUE_DEPTH

    def close(self) -> None:
        """Asks the thread to publish what is queued and the last status, and to end."""
        self._closing.set()

    def live(self) -> None:
        """Until it is closed and everything has been said."""
        try:
            while not (self._closing.is_set() and self._queue.empty() and self._orders.empty()):
                self._step()
            self._write_statuses(final=True)
        except BaseException:
            log.exception("publisher: unexpected error")
            raise
        finally:
            self.heart.rest()
            self.sinks.close()

    def _step(self) -> None:
        self.heart.beat()
        while not self._orders.empty():
            self._publish_queued()
            self._orders.get()()
        if self._info_due.is_set():
            self._info_due.clear()
            self.sinks.write(info_message(self._identity, *self._backend), None)
        self._bulletin.sinks = _trouble(self.sinks.troubles)
        self._write_statuses()
        self._publish_waiting()
        self.sinks.service()

    def _publish_waiting(self) -> None:
        """The next result, and those behind it that are there already: not for so long that others would notice."""
        with contextlib.suppress(queue.Empty):
            result = self._queue.get(timeout=_TICK_S)
            for _ in range(QUEUE_DEPTH):
                self._publish(result)
                result = self._queue.get_nowait()
            self._publish(result)

    def _publish_queued(self) -> None:
        """What was ready before a change is published before it."""
        for _ in range(self._queue.qsize()):
            self._publish(self._queue.get_nowait())

    def _publish(self, result: Result) -> None:
        self.heart.beat()
        message = detections_message(result, self._identity)
        publish_ms = result.publish_ms(message.t_publish_mono_ns)
        self._stats.add(result.timing, message.timing_ms.total, result.frame.source, publish_ms)
        self.sinks.write(message, result)

    def _write_statuses(self, final: bool = False) -> None:
        for message in self._statuses.due(final):
            self.sinks.write(message, None)

    def _change_sources(self, ledgers: Mapping[str, Ledger], all_ledgers: Sequence[Ledger]) -> None:
        for last in self._statuses.change_sources(ledgers, all_ledgers):
            self.sinks.write(last, None)
            self.sinks.forget(last.source)
        self._info_due.set()

    def _change_sinks(self, removed: Sequence[str], added: Mapping[str, Sink]) -> None:
        self.sinks.change(removed, added)
        self._info_due.set()


def _trouble(sinks: Mapping[str, str]) -> Reason | None:
    """What there is to say of sinks that lose messages."""
    return Reason("sink-failed", "; ".join(f"{name}: {why}" for name, why in sinks.items())) if sinks else None
