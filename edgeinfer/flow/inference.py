"""The inference thread on one page: take → fill → collect → deliver.

capture threads → mailbox → [ preprocess → backend → decoder ] → publisher thread
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from edgeinfer.errors import FatalError, OutOfMemoryError
from edgeinfer.flow.batching import IDLE_S, Batching
from edgeinfer.flow.delivery import Delivery
from edgeinfer.flow.network import Network, Passage, decoded
from edgeinfer.flow.slots import Loan, collected
from edgeinfer.flow.stage import Stage
from edgeinfer.flow.succession import Succession
from edgeinfer.interfaces import Backend, Slot
from edgeinfer.types import Detections, Frame

GLANCE_S, LONGEST_GLANCE_S = 0.0002, 0.002
"""So long a batch in flight is waited for while a new frame could be started: a twentieth of what the last one took."""
FIRST_RESULT_S = 60.0
"""A backend's first batch may take so much longer than the others: libraries load and tune themselves."""


class Inference(Stage):
    """Keeps the backend's slots full and passes on what comes back, in order. Owns its networks' backends."""

    def __init__(self, first: Network, batching: Batching, delivery: Delivery) -> None:
        super().__init__("inference")
        self.batching, self.delivery = batching, delivery
        self.networks = Succession(first, self._serve)
        self._proven, self._glance_s = False, GLANCE_S
        self._draining, self._aborted = threading.Event(), threading.Event()

    def drain(self) -> None:
        """Ends the thread once what waits and what is in flight has been passed on."""
        self._draining.set()

    def abort(self) -> None:
        """Ends the thread as soon as it can; what is in flight is dropped."""
        self._aborted.set()

    def live(self) -> None:
        """Until it is drained or aborted. After an error no backend is closed: the process ends soon."""
        whole = False
        try:
            while not self._aborted.is_set() and not (self._draining.is_set() and self._idle()):
                self.step()
            whole = True
        finally:
            self.delivery.give_up([*self.networks.surrender(), *self.batching.close()], "shutdown")
            self.networks.end(close=whole)

    def step(self) -> None:
        """Starts a batch, or passes one on, or waits a moment for either."""
        if not self.networks.flights:
            self._beat()
        self.networks.turn()
        wait_s = IDLE_S if self.networks.waiting else self._fill(self.networks.network)
        if wait_s is not None and self.networks.flights:
            self._collect(self.networks.flights[0].network, wait_s)

    def _fill(self, network: Network) -> float | None:
        """Returns None where a batch was started, or failed; else how long one in flight may be waited for."""
        frames: list[Frame] = []
        try:
            with Loan(network) as loan:
                if loan.free:
                    frames = self._take(network.backend)
                    if not frames:
                        return self._glance_s
                    self.networks.flights.append(loan.start(frames))
                    return None
            if not self.networks.flights:
                raise FatalError(f"{network.backend.name}: no slot is free and no batch is in flight")
        except Exception as error:
            if not self._shed(network, frames, error):
                self.networks.put_back(frames)
                self.networks.roll_back(network, error)
            return None
        return IDLE_S

    def _take(self, backend: Backend) -> list[Frame]:
        """The frames that come next: those that a failed network has left, or what waits in the mailbox."""
        again = self.networks.take_again(self.batching.limit(backend))
        return again or self.batching.take(backend, len(self.networks.flights), self._draining.is_set())

    def _collect(self, network: Network, wait_s: float) -> None:
        """Passes the oldest batch on, if it is done in time."""
        decoding = False
        try:
            with collected(network.backend, wait_s) as slot:
                if slot is None:
                    return
                collected_ns, decoding = time.monotonic_ns(), True
                found, infer_ms = self._decode(slot), slot.infer_ms
        except Exception as error:
            if self._shed(network, self.networks.flights[0].frames, error):
                self.networks.flights.popleft()
            else:
                self.networks.roll_back(network, error, blame=not decoding)
            return
        self._deliver(found, Passage(collected_ns, time.monotonic_ns(), infer_ms))

    def _decode(self, slot: Slot) -> list[Detections]:
        """Of the oldest batch. A decoder on trial that fails gives way to the one before it."""
        flight = self.networks.flights[0]
        try:
            return decoded(flight, flight.network.decoder, slot)
        except Exception as error:
            return decoded(flight, self.networks.decoder_before(flight.network, error), slot)

    def _deliver(self, found: Sequence[Detections], passage: Passage) -> None:
        flight = self.networks.flights.popleft()
        self.delivery.results(flight, found, passage, self._patient)
        self._glance_s = min(max(passage.infer_ms / 20e3, GLANCE_S), LONGEST_GLANCE_S)
        if self._is_at_work(flight.network):
            self._proven = True
            self.batching.fits()
        self.networks.delivered(flight.network, len(found))
        self._beat()

    def _shed(self, network: Network, frames: Sequence[Frame], error: Exception) -> bool:
        """Gives up a batch that the GPU had no room for. False where the error is another, or is answered otherwise."""
        if not isinstance(error, OutOfMemoryError) or self.networks.answers_for(network):
            return False
        self.delivery.give_up(frames, "memory")
        if self._is_at_work(network):
            self.batching.lost(len(frames), error)
        self._beat()
        return True

    def _is_at_work(self, network: Network) -> bool:
        """Whether new batches go where this network's went: what it shows says nothing of another backend."""
        return network.backend is self.networks.network.backend

    def _serve(self, network: Network) -> None:
        """Another backend takes over."""
        self._proven = False
        self.batching.serve(network.backend)

    def _beat(self) -> None:
        """Idle, or a batch has come back: a batch that never does must not look like life."""
        self.heart.beat(0.0 if self._proven else FIRST_RESULT_S)

    def _patient(self) -> bool:
        """A file's result waits for the publisher, which is slow and has a heart of its own."""
        self.heart.beat()
        return not self._aborted.is_set()

    def _idle(self) -> bool:
        return not self.networks.busy and not len(self.batching)
