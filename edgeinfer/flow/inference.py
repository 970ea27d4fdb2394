"""The whole data path on one page.

capture threads → mailbox → [ preprocess → backend → decoder ] → publisher thread
                              one inference thread
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

from edgeinfer.config.settings import BatchingConfig
from edgeinfer.errors import OutOfMemoryError, StickyError
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import CaptureThread
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.flow.publisher import Publisher
from edgeinfer.flow.shedding import Shedding
from edgeinfer.interfaces import Backend, Decoder, Slot
from edgeinfer.messages import ModelInfo
from edgeinfer.types import Detections, Frame, Letterbox, Result, Timing
from edgeinfer.watchdog.hearts import Heart

log = logging.getLogger(__name__)

_IDLE_S = 0.05
_POLL_S = 0.001
_GLANCE_S = 0.0002
"""How long a batch in flight is waited for while a new frame could be started."""
FIRST_RESULT_S = 60.0
"""A backend's first batch may take so much longer than the others: libraries load and tune themselves."""
TRIAL_FRAMES = 10
"""So many frames must come through a new network before the one before it is given up, """
TRIAL_S = 30.0
"""or so many seconds must have passed since its first result."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A model as it runs: what turns pictures into detections, and can only be changed as a whole.

    Two networks may share a backend and differ in the decoder.
    """

    model: ModelInfo
    backend: Backend
    decoder: Decoder


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a network's trial ended. Where `error` is set, the one before it goes on."""

    network: Network
    error: Exception | None


@dataclass(slots=True)
class Trial:
    """The first frames of a new network. `before` takes over again if they fail."""

    before: Network
    frames: int = 0
    first_s: float | None = None

    def passed(self, frames: int) -> bool:
        """Counts results. Whether there have been enough."""
        self.frames += frames
        self.first_s = self.first_s or time.monotonic()
        return self.frames >= TRIAL_FRAMES or time.monotonic() - self.first_s >= TRIAL_S


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch between submit and collect, with the network that it is in."""

    network: Network
    frames: Sequence[Frame]
    letterboxes: Sequence[Letterbox]
    queue_ms: Sequence[float]
    preprocess_ms: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline is made of. The pipeline closes its networks' backends; the rest belongs to the caller."""

    network: Network
    mailbox: Mailbox
    ledgers: Mapping[str, Ledger]
    publisher: Publisher
    captures: Mapping[str, CaptureThread]


class Pipeline(threading.Thread):
    """The inference thread: keeps the backend's slots full and passes on what comes back, in order.

    `error` is what ended it, if anything did; the process can't go on then. `verdicts` tells how each network that
    was swapped in has done. `limit` ends each source after so many results, `batching` says when frames wait for
    others; both may be set from any thread.
    """

    def __init__(self, parts: Parts, batching: BatchingConfig, limit: int | None = None) -> None:
        super().__init__(name="inference", daemon=True)
        self.error: BaseException | None = None
        self.heart = Heart(self.name)
        self._proven = False
        self._shedding = Shedding()
        self.verdicts: SimpleQueue[Verdict] = SimpleQueue()
        self.batching = batching
        self.limit = limit
        self._parts = parts
        self._network = self._at_work = parts.network
        self._trial: Trial | None = None
        self._successors: deque[Network] = deque()
        self._again: deque[Frame] = deque()
        self._flights: deque[Flight] = deque()
        self._draining = threading.Event()
        self._aborted = threading.Event()

    def replace(self, network: Network) -> None:
        """Lets `network` take over between two frames, on trial. From any thread.

        Frames before it come out of the network they went into, frames after it out of the new one; none is lost. If
        the new one fails in its first frames, those are run again on the one before.
        """
        self._successors.append(network)

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
            before = [self._trial.before] if self._trial else []
            _close([*before, self._network, *self._successors])
        except BaseException as error:  # whatever it is, the main thread must hear of it
            log.debug("inference ended", exc_info=True)
            self.error = error
        finally:
            self.heart.rest()

    def step(self) -> None:
        """Fills one slot, or passes one batch on, or waits a moment for either."""
        if not self._flights:
            self._beat()
        if self._successors and (self._trial is None or not self._flights):
            self._switch(self._successors.popleft())
        try:
            done = self._advance()
        except Exception as error:
            self._roll_back(error)
            return
        if done is not None:
            self._deliver(*done)
            self._proven = True
            self._beat()

    def _beat(self) -> None:
        """Idle, or a batch has come back: a batch that never does must not look like life."""
        self.heart.beat(0.0 if self._proven else FIRST_RESULT_S)

    def _advance(self) -> tuple[Flight, list[Detections], float, float] | None:
        """Everything that a network does: what is raised here is the fault of the one at work. Returns what is done."""
        self._at_work = self._network
        backend = self._network.backend
        slot = None if self._successors else backend.acquire()
        if slot is not None:
            if self._fill(slot):
                return None
            backend.release(slot)
        if not self._flights:
            return None
        flight = self._flights[0]
        self._at_work = flight.network
        try:
            done = flight.network.backend.collect(_GLANCE_S if slot is not None else _IDLE_S)
        except OutOfMemoryError as error:
            if self._may_roll_back:
                raise
            self._shed(self._flights.popleft().frames, error)
            return None
        if done is None:
            return None
        started = time.monotonic_ns()
        try:
            found, infer_ms = self._decode(flight, done), done.infer_ms
        finally:
            flight.network.backend.release(done)
        self._flights.popleft()
        return flight, found, infer_ms, (time.monotonic_ns() - started) / 1e6

    def _fill(self, slot: Slot) -> bool:
        network = self._network
        frames = self._take(self._shedding.limit(network.backend.max_batch))
        if not frames:
            return False
        try:
            started = time.monotonic_ns()
            letterboxes = network.backend.load(slot, [frame.image for frame in frames])
            waits = [(started - frame.capture.t_mono_ns) / 1e6 for frame in frames]
            preprocess_ms = (time.monotonic_ns() - started) / 1e6
            network.backend.submit(slot)
        except OutOfMemoryError as error:
            network.backend.release(slot)
            if self._may_roll_back:
                self._again.extend(frames)
                raise
            self._shed(frames, error)
            return True
        except BaseException:
            network.backend.release(slot)
            self._again.extend(frames)
            raise
        self._flights.append(Flight(network, frames, letterboxes, waits, preprocess_ms))
        return True

    @property
    def _may_roll_back(self) -> bool:
        """Whether what fails now is a network on trial."""
        return self._trial is not None and self._at_work is self._network

    def _shed(self, frames: Sequence[Frame], error: OutOfMemoryError) -> None:
        """Gives up a batch that the GPU had no room for. Later ones are smaller."""
        for frame in frames:
            self._parts.ledgers[frame.source].drop("memory")
        news = self._shedding.lost(len(frames), error)
        if news is not None:
            self._parts.publisher.flash(news)
        self._beat()

    def _take(self, limit: int) -> list[Frame]:
        """The frames that come next: those that a failed network has left, or what waits in the mailbox."""
        if self._again:
            return [self._again.popleft() for _ in range(min(limit, len(self._again)))]
        wait_s = 0.0 if self._flights else _IDLE_S
        return self._parts.mailbox.take(limit, wait_s, self._company_s())

    def _company_s(self) -> float:
        """How long the frames of the next batch wait for others."""
        batching, busy = self.batching, len(self._flights) >= self._network.backend.slots - 1
        patient = batching.mode == "throughput" or (batching.mode == "balanced" and busy)
        return batching.wait_ms / 1e3 if patient and not self._draining.is_set() else 0.0

    def _decode(self, flight: Flight, slot: Slot) -> list[Detections]:
        """A decoder on trial that fails is replaced by the one before it, if that reads the same backend."""
        try:
            return flight.network.decoder.decode(slot.candidates or slot.outputs, flight.letterboxes)
        except Exception as error:
            if self._trial is None or self._trial.before.backend is not flight.network.backend:
                raise
            self._roll_back(error)
            return self._network.decoder.decode(slot.candidates or slot.outputs, flight.letterboxes)

    def _deliver(self, flight: Flight, found: list[Detections], infer_ms: float, decode_ms: float) -> None:
        for frame, queue_ms, detections in zip(flight.frames, flight.queue_ms, found, strict=True):
            timing = Timing(queue_ms, flight.preprocess_ms, infer_ms, decode_ms)
            self._publish(frame, detections, timing, flight.network)
        if self._trial is not None and flight.network is self._network and self._trial.passed(len(found)):
            self._end_trial(self._trial)

    def _publish(self, frame: Frame, detections: Detections, timing: Timing, network: Network) -> None:
        """A file's result waits for room at the publisher; a live source's is dropped where there is none."""
        ledger, publisher = self._parts.ledgers[frame.source], self._parts.publisher
        live = self._parts.captures[frame.source].live
        if self.limit is not None and ledger.inferred >= self.limit:
            ledger.drop("shutdown")
        elif not self._room(live):
            ledger.drop("publish")
        else:
            seq, dropped = ledger.infer()
            name = network.backend.name
            publisher.put(Result(frame, seq, detections, timing, dropped, name, network.model, live))

    def _room(self, live: bool) -> bool:
        """Whether the publisher takes another result; no other thread gives it any. Waits for room for a file's."""
        publisher = self._parts.publisher
        while not live and publisher.full and publisher.is_alive() and not self._aborted.is_set():
            self.heart.beat()  # it is the publisher that is slow, and it has a heart of its own
            time.sleep(_POLL_S)
        return not publisher.full

    def _switch(self, successor: Network) -> None:
        """What is in flight stays in the network that it is in. A network that is still on trial is given up."""
        passed_over = [] if self._trial is None else [self._network]
        before = self._network if self._trial is None else self._trial.before
        self._trial = Trial(before)
        self._use(successor)
        _close(passed_over, keep=[before, successor])

    def _end_trial(self, trial: Trial) -> None:
        self._trial = None
        self.verdicts.put(Verdict(self._network, None))
        _close([trial.before], keep=[self._network])

    def _roll_back(self, error: Exception) -> None:
        """The network before takes over again, and what was in flight with it. Raises `error` where there is none.

        Nor does anything help after a sticky error, or where it was not the new network that failed.
        """
        trial, failed = self._trial, self._network
        if trial is None or self._at_work is not failed or isinstance(error, StickyError):
            raise error
        log.debug("the new network failed", exc_info=error)
        self._trial = None
        self._use(trial.before)
        if failed.backend is trial.before.backend:
            moved = [replace(f, network=trial.before) if f.network is failed else f for f in self._flights]
            self._flights = deque(moved)
        else:
            self._rerun(failed)
            self._give_up_successors(failed.backend, error)
            _blame(failed.backend)
            _close([failed], keep=[trial.before], quietly=True)
        self.verdicts.put(Verdict(failed, error))

    def _rerun(self, failed: Network) -> None:
        """Takes the frames out of a network, to be run again; they come before all others."""
        lost = [frame for flight in self._flights if flight.network is failed for frame in flight.frames]
        self._flights = deque(flight for flight in self._flights if flight.network is not failed)
        self._again.extendleft(reversed(lost))

    def _give_up_successors(self, backend: Backend, error: Exception) -> None:
        """Whoever waits to take over with a backend that has failed has failed too."""
        for network in [network for network in self._successors if network.backend is backend]:
            self._successors.remove(network)
            self.verdicts.put(Verdict(network, error))

    def _use(self, network: Network) -> None:
        if network.backend is not self._network.backend:
            self._proven, self._shedding = False, Shedding()
        self._network = network
        network.backend.prepare(network.decoder.filter)
        self._parts.mailbox.set_depth(network.backend.lane_depth)

    def _empty(self) -> bool:
        return not self._flights and not self._again and not len(self._parts.mailbox)

    def _give_up_flights(self) -> None:
        in_flight = [frame for flight in self._flights for frame in flight.frames]
        for frame in (*in_flight, *self._again, *self._parts.mailbox.close()):
            self._parts.ledgers[frame.source].drop("shutdown")


def _blame(backend: Backend) -> None:
    """An engine that fails is remembered for it, where its backend can."""
    blame = getattr(backend, "blame", None)
    if blame is not None:
        blame()


def _close(networks: Sequence[Network], keep: Sequence[Network] = (), quietly: bool = False) -> None:
    """Closes the networks' backends, each once, but none that `keep` uses. `quietly`: it has failed already."""
    kept = {id(network.backend) for network in keep}
    for backend in {id(network.backend): network.backend for network in networks}.values():
        if id(backend) in kept:
            continue
        try:
            backend.close()
        except Exception as error:
            if isinstance(error, StickyError) or not quietly:
                raise
            log.debug("closing what has failed", exc_info=True)
