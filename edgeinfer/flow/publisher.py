"""The publisher thread: turns results into messages, keeps status and info current, and owns every sink."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET, UnsetType, structs

from edgeinfer import __version__
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.compose import Identity, detections_message, info_message, status_message
from edgeinfer.flow.outbox import Outbox
from edgeinfer.flow.statistics import Statistics
from edgeinfer.flow.wallclock import WallClock
from edgeinfer.interfaces import Forgetful, Sink
from edgeinfer.messages import (
    DAEMON,
    InfoMessage,
    Message,
    ModelInfo,
    Reason,
    State,
    Vitals,
)
from edgeinfer.telemetry.snapshot import SourceSnapshot, total
from edgeinfer.types import Result
from edgeinfer.watchdog.hearts import Heart

log = logging.getLogger(__name__)

QUEUE_DEPTH = 64
STATUS_PERIOD_S = 1.0
_TICK_S = 0.05


class Publisher(threading.Thread):
    """Takes results from the inference thread and messages them to all sinks.

    A sink that fails is closed and named in `failed_sinks`; the others go on. One that may block has an `Outbox`.
    `error` is a bug that ended the thread.
    """

    def __init__(
        self, identity: Identity, ledgers: Mapping[str, Ledger], sinks: Mapping[str, Sink], stats: Statistics
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self.error: BaseException | None = None
        self.failed_sinks: dict[str, Exception] = {}
        self._identity = identity
        self._ledgers = dict(ledgers)
        self._all_ledgers = list(ledgers.values())
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._retired: list[Outbox] = []
        self._facts: dict[str, Any] = {}
        self._wall = WallClock()
        self.heart = Heart(self.name)
        self._outboxes = {
            name: Outbox(name, sink, waiting=self.heart.beat) for name, sink in sinks.items() if sink.blocks
        }
        self._sinks: dict[str, Sink] = {**sinks, **self._outboxes}
        self._stats = stats
        self._queue: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._info_due = threading.Event()
        self._info_due.set()
        self._backend: str | None = None
        self._news: Reason | None = None
        self._fatal: Reason | None = None
        self._heat: Reason | None = None
        self.vitals: Callable[[], Vitals] | None = None
        self._flashes: queue.SimpleQueue[Reason] = queue.SimpleQueue()
        self.versions: dict[str, str] = {"edgeinfer": __version__}
        self._last_state: dict[str, tuple[State, Reason | None]] = {}
        self._last_daemon: tuple[Reason | None, dict[str, Any]] | None = None
        self._next_status_s = 0.0

    def set_backend(self, model: ModelInfo, name: str, versions: Mapping[str, str]) -> None:
        """Tells which model runs now, and on what; `info` is published again. From the main thread."""
        self._identity = replace(self._identity, model=model)
        self._backend, self.versions = name, {"edgeinfer": __version__, **versions}
        self._info_due.set()

    def set_sources(self, ledgers: Mapping[str, Ledger], all_ledgers: Sequence[Ledger]) -> None:
        """Tells which sources there are now. From the main thread.

        Those that are gone get their last `status`. `all_ledgers` counts them all the same: the daemon's own counters
        never fall.
        """
        self._identity = replace(self._identity, sources=tuple(ledgers))
        self._orders.put(lambda: self._change_sources(dict(ledgers), list(all_ledgers)))

    def change_sinks(self, removed: Sequence[str], added: Mapping[str, Sink]) -> None:
        """Closes some sinks and writes to others from now on; a name may be in both. From the main thread."""
        self._orders.put(lambda: self._change_sinks(removed, added))

    def set_fact(self, field: str, value: object) -> None:
        """Fills a field of the daemon's own `status` (see `StatusMessage`), from now on. From any thread."""
        self._facts = {**self._facts, field: value}

    def set_news(self, reason: Reason | None) -> None:
        """What there is to say of the daemon as a whole, in its own `status`. From any thread."""
        self._news = reason

    def set_heat(self, reason: Reason | None) -> None:
        """What is done about heat; said where there is no other news. From any thread."""
        self._heat = reason

    @property
    def backend(self) -> str | None:
        """What runs the model, None until it is loaded."""
        return self._backend

    @property
    def model_id(self) -> str:
        """The model, as detections carry it."""
        return self._identity.model.id

    @property
    def subscribers(self) -> int | UnsetType:
        """Who is connected to the ZeroMQ socket and listens; UNSET where there is none."""
        count: int | UnsetType = getattr(self._sinks.get("publish"), "subscribers", UNSET)
        return count

    def flash(self, reason: Reason) -> None:
        """News that is told in one `status` and not kept. From any thread."""
        self._flashes.put(reason)

    def fail(self, reason: Reason) -> None:
        """The process is about to end for this reason; the next `status` says so, at once. From any thread."""
        self._fatal = reason

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

    def run(self) -> None:
        """The thread's life."""
        try:
            while not (self._closing.is_set() and self._queue.empty()):
                self._step()
            self._write_status(final=True)
        except BaseException as error:  # whatever it is, the main thread must hear of it
            log.exception("publisher: unexpected error")
            self.error = error
        finally:
            self.heart.rest()
            for name in list(self._sinks):
                self._close(name)
            for outbox in self._retired:
                outbox.join()

    def _step(self) -> None:
        self.heart.beat()
        while not self._orders.empty():
            self._publish_queued()
            self._orders.get()()
        if self._info_due.is_set():
            self._info_due.clear()
            self._write(self._info(), None)
        self._write_status()
        self._publish_waiting()
        for sink in list(self._sinks.values()):
            sink.service()

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

    def _change_sources(self, ledgers: dict[str, Ledger], all_ledgers: list[Ledger]) -> None:
        gone = {name: ledger for name, ledger in self._ledgers.items() if name not in ledgers}
        self._ledgers, self._all_ledgers = ledgers, all_ledgers
        for name, ledger in gone.items():
            self._last_state.pop(name, None)
            self._write(status_message(name, ledger.snapshot(), self._identity.session), None)
            for sink in self._sinks.values():
                if isinstance(sink, Forgetful):
                    sink.forget(name)
        self._info_due.set()

    def _change_sinks(self, removed: Sequence[str], added: Mapping[str, Sink]) -> None:
        """A sink that blocks is left to finish on its own thread; its successor waits for it there."""
        before: dict[str, Outbox] = {}
        for name in removed:
            self.failed_sinks.pop(name, None)
            outbox = self._outboxes.pop(name, None)
            if outbox is None:
                self._retire(name)
            else:
                self._sinks.pop(name, None)
                outbox.retire()
                before[name] = outbox
        self._retired = [outbox for outbox in (*self._retired, *before.values()) if outbox.is_alive()]
        outboxes = {
            name: Outbox(name, sink, before.get(name), self.heart.beat) for name, sink in added.items() if sink.blocks
        }
        self._outboxes.update(outboxes)
        self._sinks.update({**added, **outboxes})
        self._info_due.set()

    def _retire(self, name: str) -> None:
        sink = self._sinks.pop(name, None)
        if sink is not None:
            try:
                sink.close()
            except Exception as error:
                log.warning("%s: %s", name, reason_of(error))

    def _publish(self, result: Result) -> None:
        message = detections_message(result, self._identity)
        self._stats.add(result.timing, message.timing_ms.total, result.frame.source)
        self._write(message, result)

    def _write(self, message: Message, result: Result | None) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(message, result)
            except Exception as error:  # whatever a sink does, the others go on
                self._give_up(name, error)

    @property
    def unwritten(self) -> dict[str, int]:
        """Messages that a sink which blocks has not taken: too slow for a live source, or not done at the end."""
        counts = {name: outbox.lost + outbox.waiting for name, outbox in self._outboxes.items()}
        return {name: count for name, count in counts.items() if count and name not in self.failed_sinks}

    def _close(self, name: str) -> None:
        try:
            self._sinks[name].close()
        except Exception as error:
            self.failed_sinks.setdefault(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        sink = self._sinks.pop(name)
        self.failed_sinks[name] = error
        if not isinstance(error, BrokenPipeError):
            log.warning("%s: %s; no more is written to it", name, reason_of(error))
        with contextlib.suppress(Exception):  # it has failed already, and that was said
            sink.close()

    def _write_status(self, final: bool = False) -> None:
        """Every source's status and the daemon's own, once a second and when one's state has changed."""
        now = time.monotonic()
        due = final or now >= self._next_status_s
        if due:
            self._next_status_s = now + STATUS_PERIOD_S
            self._look_at_the_clock()
        for name, ledger in self._ledgers.items():
            if due or self._last_state.get(name) != ledger.state:
                self._last_state[name] = ledger.state
                self._write(status_message(name, ledger.snapshot(), self._identity.session), None)
        while not self._flashes.empty():
            self._write_daemon_status(self._flashes.get(), final)
        news, facts = self._fatal or self._news or self._heat, self._facts
        if due or self._last_daemon != (news, facts):
            self._last_daemon = (news, facts)
            self._write_daemon_status(news, final)

    def _write_daemon_status(self, news: Reason | None, final: bool) -> None:
        whole = status_message(DAEMON, self._total(news, final), self._identity.session)
        vitals = {} if self.vitals is None else {"vitals": self.vitals()}
        self._write(structs.replace(whole, **self._facts, **vitals), None)

    def _look_at_the_clock(self) -> None:
        step_ns = self._wall.look()
        if step_ns is not None:
            log.warning("the wall clock was set by %+.1f s; stamps before and after differ by that", step_ns / 1e9)
            self.set_fact("clock_step_s", step_ns / 1e9)

    def _total(self, news: Reason | None, final: bool) -> SourceSnapshot:
        books = [ledger.snapshot() for ledger in self._all_ledgers]
        state: State = "ended" if final else "running" if self._backend else "starting"
        return total("failed" if self._fatal else state, news, books)

    def _info(self) -> InfoMessage:
        return info_message(self._identity, self._backend, self.versions)


def reason_of(error: Exception) -> str:
    """What went wrong, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
