"""Which network is at work, which one is on trial, and whose batches are in flight.

A network takes over between two frames, on trial. Frames before it come out of the network that they went into, frames
after it out of the new one. Where the new one fails in its first frames, the one before takes over again and runs those
frames once more: none is lost, and none comes out twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from edgeinfer.errors import StickyError
from edgeinfer.flow.network import Flight, Network
from edgeinfer.interfaces import Backend, Blamable, Decoder
from edgeinfer.types import Frame

log = logging.getLogger(__name__)

TRIAL_FRAMES = 10
"""So many results end a trial well,"""
TRIAL_S = 30.0
"""or so many seconds since the first of them: a slow camera must not keep two networks in memory."""


Verdict = Future[bool]
"""How an offer ends: True, it serves; an exception, it failed and the one before serves again; False, another offer
took its place, or the run ended, before it could show what it is worth. Every offer gets one."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """A network that is to take over, and what becomes of it."""

    network: Network
    verdict: Verdict


@dataclass(slots=True)
class Trial:
    """The first frames of a network that has taken over. `before` is what would serve again."""

    offer: Offer
    before: Network
    results: int = 0
    first_s: float | None = None

    def passes(self, results: int) -> bool:
        """Counts results. Whether there have been enough."""
        now = time.monotonic()
        self.results += results
        self.first_s = now if self.first_s is None else self.first_s
        return self.results >= TRIAL_FRAMES or now - self.first_s >= TRIAL_S


class Succession:
    """Used by the inference thread; `offer` by any. Closes the backends of networks that have had their day.

    `network` is the one that new batches go into, `flights` the batches that are out, oldest first; `ended` says that
    nothing takes over any more. `on_change` hears
    of every network that comes with another backend, before a frame goes into it.
    """

    def __init__(self, first: Network, on_change: Callable[[Network], None]) -> None:
        self.network = first
        self.flights: deque[Flight] = deque()
        self._on_change = on_change
        self._again: deque[Frame] = deque()
        self._trial: Trial | None = None
        self._offers: deque[Offer] = deque()
        self._failed: tuple[Backend, Exception] | None = None
        self.ended = False
        self._lock = threading.Lock()  # for offers: none may be left without its verdict, or use what has failed

    def offer(self, network: Network) -> Verdict:
        """Lets `network` take over as soon as it may, and hands over its backend. From any thread."""
        offer = Offer(network, Future())
        with self._lock:
            if self._failed is not None and network.backend is self._failed[0]:
                offer.verdict.set_exception(self._failed[1])
                return offer.verdict
            if not self.ended:
                self._offers.append(offer)
                return offer.verdict
        try:
            _close([network], keep=[self.network])
        finally:
            offer.verdict.set_result(False)
        return offer.verdict

    @property
    def waiting(self) -> bool:
        """Whether an offer waits for the batches in flight: no new one should start."""
        return bool(self._offers)

    @property
    def busy(self) -> bool:
        """Whether frames are in flight, or have come back to be run again."""
        return bool(self.flights or self._again)

    def turn(self) -> None:
        """Lets the next offer take over, if there is one. A network that is still on trial is given up, once idle."""
        if not self._offers or (self._trial is not None and self.flights):
            return
        offer, passed_over = self._offers.popleft(), self._trial
        before = self.network if passed_over is None else passed_over.before
        self._trial = Trial(offer, before)
        if passed_over is not None:
            passed_over.offer.verdict.set_result(False)
            _close([passed_over.offer.network], keep=[before, offer.network, *self._offered()])
        try:
            self._use(offer.network)
        except Exception as error:  # it could not even get ready for its first frame
            self.roll_back(offer.network, error)

    def take_again(self, limit: int) -> list[Frame]:
        """Up to `limit` frames that a failed network has left; they come before all others."""
        return [self._again.popleft() for _ in range(min(limit, len(self._again)))]

    def put_back(self, frames: Iterable[Frame]) -> None:
        """Frames that were taken and have not been run, in their order; they come next."""
        self._again.extendleft(reversed(list(frames)))

    def answers_for(self, network: Network) -> bool:
        """Whether a failure of this network's backend can be mended: it is on trial, and not with the one before's."""
        trial = self._trial
        return trial is not None and network is self.network and network.backend is not trial.before.backend

    def delivered(self, network: Network, results: int) -> None:
        """Results of this network have been passed on; after enough of them its trial is over."""
        trial = self._trial
        if trial is None or network is not self.network or not trial.passes(results):
            return
        self._trial = None
        try:
            _close([trial.before], keep=[self.network, *self._offered()])
        finally:
            trial.offer.verdict.set_result(True)

    def roll_back(self, network: Network, error: Exception, blame: bool = True) -> None:
        """`network` has failed: the one before takes over, with what was in flight. `blame`: it was its backend.

        Raises `error` where that would not help: it is not on trial, or the GPU is lost to this process.
        """
        trial = self._trial
        if trial is None or not self.answers_for(network) or isinstance(error, StickyError):
            raise error
        log.debug("the new network failed", exc_info=error)
        self.put_back(frame for flight in self.flights if flight.network is network for frame in flight.frames)
        self.flights = deque(flight for flight in self.flights if flight.network is not network)
        if blame and isinstance(network.backend, Blamable):
            network.backend.blame()
        self._restore(trial, error)
        _close([network], keep=[trial.before], quietly=True)

    def decoder_before(self, network: Network, error: Exception) -> Decoder:
        """`network`'s decoder has failed. Returns the one before it, which reads the same outputs from now on.

        Raises `error` where it is not a decoder alone that is on trial.
        """
        trial = self._trial
        if trial is None or network is not self.network or network.backend is not trial.before.backend:
            raise error
        log.debug("the new decoder failed", exc_info=error)
        before = trial.before
        self.flights = deque(replace(f, network=before) if f.network is network else f for f in self.flights)
        self._restore(trial, error)
        return before.decoder

    def surrender(self) -> list[Frame]:
        """The frames that are in flight or wait to be run again; nobody runs them any more."""
        frames = [frame for flight in self.flights for frame in flight.frames]
        frames += self._again
        self.flights.clear()
        self._again.clear()
        return frames

    def end(self, close: bool) -> None:
        """Nothing takes over any more.

        `close` frees every backend; after an error that is left to the end of the process.
        """
        with self._lock:
            self.ended = True
        trial, self._trial = self._trial, None
        offers = [*([trial.offer] if trial else []), *self._offers]
        self._offers.clear()
        try:
            if close:
                _close([self.network, *([trial.before] if trial else []), *(offer.network for offer in offers)])
        finally:
            for offer in offers:
                offer.verdict.set_result(False)

    def _restore(self, trial: Trial, error: Exception) -> None:
        """The one before serves again; who waited to take over with the backend that failed has failed too."""
        self._trial = None
        failed = trial.offer.network
        try:
            self._use(trial.before)
        finally:
            trial.offer.verdict.set_exception(error)
        if failed.backend is trial.before.backend:
            return
        with self._lock:
            self._failed = failed.backend, error
            lost = [offer for offer in self._offers if offer.network.backend is failed.backend]
            self._offers = deque(offer for offer in self._offers if offer not in lost)
        for offer in lost:
            offer.verdict.set_exception(error)

    def _use(self, network: Network) -> None:
        before, self.network = self.network, network
        network.backend.prepare(network.decoder.filter)
        if network.backend is not before.backend:
            self._on_change(network)

    def _offered(self) -> list[Network]:
        return [offer.network for offer in list(self._offers)]


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
