"""The whole data path on one page.

capture threads → mailbox → [ preprocess → backend → decoder ] → publisher thread
                              one inference thread
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeinfer.accounting import Ledger
from edgeinfer.capture import CaptureThread
from edgeinfer.errors import OutOfMemoryError
from edgeinfer.health import Heart
from edgeinfer.interfaces import Backend, Decoder, Slot
from edgeinfer.mailbox import Mailbox
from edgeinfer.publisher import Publisher
from edgeinfer.shedding import Shedding
from edgeinfer.types import Detections, Float32, Frame, Image, Letterbox, Result, Timing

log = logging.getLogger(__name__)

_IDLE_S = 0.05
_POLL_S = 0.001
FIRST_RESULT_S = 60.0
"""A backend's first batch may take so much longer than the others: libraries load and tune themselves."""
Preprocess = Callable[[Image, Float32], Letterbox]


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch between submit and collect."""

    frames: Sequence[Frame]
    letterboxes: Sequence[Letterbox]
    queue_ms: Sequence[float]
    preprocess_ms: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline is made of. The pipeline closes its backends; the rest belongs to the caller."""

    backend: Backend
    preprocess: Preprocess
    decoder: Decoder
    mailbox: Mailbox
    ledgers: Mapping[str, Ledger]
    publisher: Publisher
    limit: int | None = None


class Pipeline(threading.Thread):
    """The inference thread: keeps the backend's slots full and passes on what comes back, in order.

    `error` is what ended it, if anything did; the process can't go on then.
    """

    def __init__(self, parts: Parts, captures: Mapping[str, CaptureThread]) -> None:
        super().__init__(name="inference", daemon=True)
        self.error: BaseException | None = None
        self.heart = Heart(self.name)
        self._proven = False
        self._shedding = Shedding()
        self._parts = parts
        self._backend = parts.backend
        self._successor: Backend | None = None
        self._captures = captures
        self._flights: deque[Flight] = deque()
        self._draining = threading.Event()
        self._aborted = threading.Event()

    def replace(self, backend: Backend) -> None:
        """Lets `backend` take over between two frames: once what is in flight has been passed on, nothing is lost."""
        self._successor = backend

    def drain(self) -> None:
        """Ends the thread once what waits and what is in flight has been passed on."""
        self._draining.set()

    def abort(self) -> None:
        """Ends the thread as soon as it can; what is in flight is dropped."""
        self._aborted.set()

    def run(self) -> None:
        """The thread's life."""
        try:
            while not (self._draining.is_set() and self._empty()) and not self._aborted.is_set():
                self.step()
            self._give_up_flights()
            self._backend.close()
            if self._successor is not None:
                self._successor.close()
        except BaseException as error:  # whatever it is, the main thread must hear of it
            log.debug("inference ended", exc_info=True)
            self.error = error
        finally:
            self.heart.rest()

    def step(self) -> None:
        """Fills one slot, or passes one batch on, or waits a moment for either."""
        if not self._flights:
            self._beat()
        if self._successor is not None and not self._flights:
            self._switch(self._successor)
        slot = self._backend.acquire() if self._successor is None else None
        if slot is not None:
            if self._fill(slot):
                return
            self._backend.release(slot)
        if self._flights:
            done = self._collect(_POLL_S if slot is not None else _IDLE_S)
            if done is not None:
                self._deliver(done, self._flights.popleft())
                self._backend.release(done)
                self._proven = True
                self._beat()

    def _collect(self, timeout_s: float) -> Slot | None:
        try:
            return self._backend.collect(timeout_s)
        except OutOfMemoryError as error:
            self._shed(self._flights.popleft(), error)
            return None

    def _shed(self, flight: Flight, error: OutOfMemoryError) -> None:
        """Gives up a batch that the GPU had no room for. Later ones are smaller."""
        for frame in flight.frames:
            self._parts.ledgers[frame.source].drop("memory")
        news = self._shedding.lost(len(flight.frames), error)
        if news is not None:
            self._parts.publisher.flash(news)
        self._beat()

    def _beat(self) -> None:
        """Idle, or a batch has come back: a batch that never does must not look like life."""
        self.heart.beat(0.0 if self._proven else FIRST_RESULT_S)

    def _fill(self, slot: Slot) -> bool:
        limit = self._shedding.limit(self._backend.max_batch)
        frames = self._parts.mailbox.take(limit, 0 if self._flights else _IDLE_S)
        if not frames:
            return False
        started = time.monotonic_ns()
        letterboxes = [self._parts.preprocess(frame.image, slot.input[i]) for i, frame in enumerate(frames)]
        waits = [(started - frame.capture.t_mono_ns) / 1e6 for frame in frames]
        self._flights.append(Flight(frames, letterboxes, waits, (time.monotonic_ns() - started) / 1e6))
        try:
            self._backend.submit(slot, len(frames))
        except OutOfMemoryError as error:
            self._shed(self._flights.pop(), error)
        return True

    def _deliver(self, slot: Slot, flight: Flight) -> None:
        started = time.monotonic_ns()
        found = self._parts.decoder.decode(slot.outputs, flight.letterboxes)
        decode_ms = (time.monotonic_ns() - started) / 1e6
        for frame, queue_ms, detections in zip(flight.frames, flight.queue_ms, found, strict=True):
            self._publish(frame, detections, Timing(queue_ms, flight.preprocess_ms, slot.infer_ms, decode_ms))

    def _publish(self, frame: Frame, detections: Detections, timing: Timing) -> None:
        """A file's result waits for room at the publisher; a live source's is dropped where there is none."""
        ledger, publisher = self._parts.ledgers[frame.source], self._parts.publisher
        live = self._captures[frame.source].live
        if self._parts.limit is not None and ledger.inferred >= self._parts.limit:
            ledger.drop("shutdown")
        elif not self._room(live):
            ledger.drop("publish")
        else:
            seq, dropped = ledger.infer()
            publisher.put(Result(frame, seq, detections, timing, dropped, self._backend.name, live))

    def _room(self, live: bool) -> bool:
        """Whether the publisher takes another result; no other thread gives it any. Waits for room for a file's."""
        publisher = self._parts.publisher
        while not live and publisher.full and publisher.is_alive() and not self._aborted.is_set():
            self.heart.beat()  # it is the publisher that is slow, and it has a heart of its own
            time.sleep(_POLL_S)
        return not publisher.full

    def _switch(self, successor: Backend) -> None:
        self._successor = None
        self._backend.close()
        self._backend, self._proven, self._shedding = successor, False, Shedding()
        self._parts.mailbox.set_depth(successor.lane_depth)

    def _empty(self) -> bool:
        return not self._flights and not len(self._parts.mailbox)

    def _give_up_flights(self) -> None:
        for flight in self._flights:
            for frame in flight.frames:
                self._parts.ledgers[frame.source].drop("shutdown")
        for frame in self._parts.mailbox.close():
            self._parts.ledgers[frame.source].drop("shutdown")
