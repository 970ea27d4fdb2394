"""Out of inference: results to the publisher, everything else into the books with its reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from edgeinfer.flow.accounting import DropReason, Ledger
from edgeinfer.flow.network import Flight, Passage, timing_of
from edgeinfer.flow.publisher import Publisher
from edgeinfer.types import Detections, Frame, Result

_POLL_S = 0.001


class Delivery:
    """Used by the inference thread. `limit` ends each source after so many results; it may be set from any thread."""

    def __init__(self, ledgers: Mapping[str, Ledger], publisher: Publisher, limit: int | None = None) -> None:
        self.limit = limit
        self._ledgers, self._publisher = ledgers, publisher

    def results(
        self,
        flight: Flight,
        found: Sequence[Detections],
        passage: Passage,
        patient: Callable[[], bool],
    ) -> None:
        """What was found in a batch, one per frame.

        `patient` is asked again and again while a file's result waits for room; false gives that up.
        """
        for frame, detections in zip(flight.frames, found, strict=True):
            if self._takes(frame, patient):
                self._publish(flight, frame, detections, passage)

    def give_up(self, frames: Iterable[Frame], reason: DropReason) -> None:
        """Frames that come to nothing."""
        for frame in frames:
            self._ledgers[frame.source].drop(reason)

    def _takes(self, frame: Frame, patient: Callable[[], bool]) -> bool:
        """A file's result waits for room at the publisher; a live source's is dropped where there is none."""
        ledger, publisher = self._ledgers[frame.source], self._publisher
        if self.limit is not None and ledger.inferred >= self.limit:
            ledger.drop("shutdown")
            return False
        while not frame.live and publisher.full and publisher.is_alive() and patient():
            time.sleep(_POLL_S)
        if publisher.full:
            ledger.drop("publish")
            return False
        return True  # no other thread gives it any: what is free stays free

    def _publish(self, flight: Flight, frame: Frame, detections: Detections, passage: Passage) -> None:
        (seq, dropped), network = self._ledgers[frame.source].infer(), flight.network
        timing, ready_ns, ran_on = timing_of(frame, flight, passage), passage.t_decoded_ns, network.backend.name
        self._publisher.put(Result(frame, seq, detections, timing, dropped, ran_on, network.model, ready_ns))
