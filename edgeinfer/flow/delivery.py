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
        """What was found in a batch, one per frame. It is handed over in one go: waking the publisher costs more.

        `patient` is asked again and again while a file's result waits for room; false gives that up.
        """
        ready: list[Result] = []
        for frame, detections in zip(flight.frames, found, strict=True):
            if self._takes(frame, ready, patient):
                ready.append(self._result(flight, frame, detections, passage))
        self._hand_over(ready)

    def give_up(self, frames: Iterable[Frame], reason: DropReason) -> None:
        """Frames that come to nothing."""
        for frame in frames:
            self._ledgers[frame.source].drop(reason)

    def _takes(self, frame: Frame, ready: list[Result], patient: Callable[[], bool]) -> bool:
        """Whether there is room at the publisher beside what is `ready`.

        A file's result waits for it; a live source's is dropped where there is none.
        """
        ledger, publisher = self._ledgers[frame.source], self._publisher
        if self.limit is not None and ledger.inferred >= self.limit:
            ledger.drop("shutdown")
            return False
        if not frame.live and publisher.room <= len(ready):
            self._hand_over(ready)
            while not publisher.room and publisher.is_alive() and patient():
                time.sleep(_POLL_S)
        if publisher.room <= len(ready):
            ledger.drop("publish")
            return False
        return True  # no other thread gives it any: what is free stays free

    def _result(self, flight: Flight, frame: Frame, detections: Detections, passage: Passage) -> Result:
        (seq, dropped), network = self._ledgers[frame.source].infer(), flight.network
        timing, ready_ns = timing_of(frame, flight, passage), passage.t_decoded_ns
        return Result(frame, seq, detections, timing, dropped, network.backend.name, network.model, ready_ns)

    def _hand_over(self, ready: list[Result]) -> None:
        if ready:
            self._publisher.put(tuple(ready))
            ready.clear()
