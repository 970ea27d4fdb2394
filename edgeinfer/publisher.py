"""The publisher thread: turns results into messages, keeps status and info current, and owns every sink."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import UNSET, UnsetType

from edgeinfer import __version__
from edgeinfer.accounting import Ledger, Snapshot, total
from edgeinfer.interfaces import Sink
from edgeinfer.messages import (
    DAEMON,
    Detection,
    DetectionsMessage,
    InfoMessage,
    Message,
    ModelInfo,
    Reason,
    State,
    StatusMessage,
    TimingMs,
    Vitals,
)
from edgeinfer.outbox import Outbox
from edgeinfer.statistics import Statistics
from edgeinfer.types import Result

log = logging.getLogger(__name__)

QUEUE_DEPTH = 64
STATUS_PERIOD_S = 1.0
_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same for all messages of a run."""

    session: str
    model: ModelInfo
    sources: tuple[str, ...]
    t_start_ns: int

    @staticmethod
    def new(model: ModelInfo, sources: Sequence[str]) -> Identity:
        """A fresh session, starting now."""
        return Identity(uuid.uuid4().hex, model, tuple(sources), time.time_ns())


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
        self._ledgers = ledgers
        self._outboxes = {name: Outbox(name, sink) for name, sink in sinks.items() if sink.blocks}
        self._sinks: dict[str, Sink] = {**sinks, **self._outboxes}
        self._stats = stats
        self._queue: queue.Queue[Result] = queue.Queue(QUEUE_DEPTH)
        self._closing = threading.Event()
        self._info_due = threading.Event()
        self._info_due.set()
        self._backend: str | None = None
        self._news: Reason | None = None
        self._heat: Reason | None = None
        self.vitals: Callable[[], Vitals] | None = None
        self.versions: dict[str, str] = {"edgeinfer": __version__}
        self._last_state: dict[str, tuple[State, Reason | None]] = {}
        self._next_status_s = 0.0

    def set_backend(self, name: str, versions: Mapping[str, str]) -> None:
        """Tells what runs the model now; `info` is published again. From any thread."""
        self._backend, self.versions = name, {"edgeinfer": __version__, **versions}
        self._info_due.set()

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

    def put(self, result: Result) -> None:
        """Hands a result over. Only while it is not `full`."""
        self._queue.put_nowait(result)

    @property
    def full(self) -> bool:
        """Whether the next result would have to wait."""
        return self._queue.full()

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
            for name in list(self._sinks):
                self._close(name)

    def _step(self) -> None:
        if self._info_due.is_set():
            self._info_due.clear()
            self._write(self._info(), None)
        self._write_status()
        try:
            result = self._queue.get(timeout=_TICK_S)
        except queue.Empty:
            result = None
        if result is not None:
            self._publish(result)
        for sink in list(self._sinks.values()):
            sink.service()

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
        for name, ledger in self._ledgers.items():
            if due or self._last_state.get(name) != ledger.state:
                self._last_state[name] = ledger.state
                self._write(status_message(name, ledger.snapshot(), self._identity.session), None)
        news = self._news or self._heat
        if due or self._last_state.get(DAEMON) != ("running", news):
            self._last_state[DAEMON] = ("running", news)
            vitals = UNSET if self.vitals is None else self.vitals()
            self._write(status_message(DAEMON, self._total(news, final), self._identity.session, vitals), None)

    def _total(self, news: Reason | None, final: bool) -> Snapshot:
        books = [ledger.snapshot() for ledger in self._ledgers.values()]
        state: State = "ended" if final else "running" if self._backend else "starting"
        return total(state, news, books)

    def _info(self) -> InfoMessage:
        return InfoMessage(
            source=DAEMON,
            session=self._identity.session,
            t_publish_ns=time.time_ns(),
            t_publish_mono_ns=time.monotonic_ns(),
            version=__version__,
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid=os.getpid(),
            t_start_ns=self._identity.t_start_ns,
            model=self._identity.model,
            backend=self._backend,
            versions=self.versions,
            sources=list(self._identity.sources),
        )


def detections_message(result: Result, identity: Identity) -> DetectionsMessage:
    """The message for a result, published now."""
    capture, now_mono = result.frame.capture, time.monotonic_ns()
    timing = result.timing
    return DetectionsMessage(
        source=result.frame.source,
        session=identity.session,
        t_publish_ns=time.time_ns(),
        t_publish_mono_ns=now_mono,
        seq=result.seq,
        frame_id=result.frame.frame_id,
        t_capture_ns=capture.t_ns,
        t_capture_mono_ns=capture.t_mono_ns,
        capture_clock=capture.clock,
        t_media_ns=UNSET if capture.t_media_ns is None else capture.t_media_ns,
        width=capture.image.shape[1],
        height=capture.image.shape[0],
        model=identity.model.id,
        backend=result.backend,
        timing_ms=TimingMs(
            queue=round(timing.queue, 3),
            preprocess=round(timing.preprocess, 3),
            infer=round(timing.infer, 3),
            decode=round(timing.decode, 3),
            total=round((now_mono - capture.t_mono_ns) / 1e6, 3),
        ),
        dropped=result.dropped,
        detections=detection_list(result, identity.model.labels),
    )


def detection_list(result: Result, labels: Sequence[str]) -> list[Detection]:
    """Rounded to what a pixel and a score are worth: 0.001 px, 0.00001."""
    found = result.detections
    boxes = np.round(found.boxes.astype(np.float64), 3).tolist()
    scores = np.round(found.scores.astype(np.float64), 5).tolist()
    return [
        Detection(class_id=class_id, label=labels[class_id], score=min(1.0, max(0.0, score)), box=tuple(box))
        for class_id, score, box in zip(found.class_ids.tolist(), scores, boxes, strict=True)
    ]


def status_message(source: str, books: Snapshot, session: str, vitals: Vitals | UnsetType = UNSET) -> StatusMessage:
    """A source's status, or with `vitals` the daemon's, published now."""
    return StatusMessage(
        source=source,
        session=session,
        t_publish_ns=time.time_ns(),
        t_publish_mono_ns=time.monotonic_ns(),
        state=books.state,
        reason=books.reason,
        captured=books.captured,
        inferred=books.inferred,
        in_flight=books.in_flight,
        dropped=sum(books.dropped.values()),
        dropped_by_reason=books.dropped,
        fps=round(books.fps, 2),
        vitals=vitals,
    )


def reason_of(error: Exception) -> str:
    """What went wrong, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"


def boot_id() -> str:
    """The kernel's id of this boot (random(4)), empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
