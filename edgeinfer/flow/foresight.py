"""When the batch behind the ones in flight is taken: of live frames not before they are needed.

In the mailbox a newer frame takes the place of an older one; in the backend it grows old behind the batch before it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from edgeinfer.flow.network import Flight, Passage

WORTHWHILE_NS = 5_000_000
"""A batch that takes less is not waited for: what there is to win is less than what a late start would lose."""
MARGIN_NS = 2_000_000
"""So much earlier than preprocessing needs."""
LAST = 8
"""So many batches are remembered. The quickest of them counts, so that the backend does not run dry."""


class Foresight:
    """Used by the inference thread."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._collected_ns = 0
        self._infer_ns: deque[float] = deque(maxlen=LAST)
        self._preprocess_ns: deque[int] = deque(maxlen=LAST)

    def learn(self, flight: Flight, passage: Passage) -> None:
        """A batch has come back."""
        self._collected_ns = passage.t_collected_ns
        self._infer_ns.append(passage.infer_ms * 1e6)
        self._preprocess_ns.append(flight.t_loaded_ns - flight.t_taken_ns)

    def early_s(self, flights: Sequence[Flight], slots: int) -> float:
        """In how many seconds the next batch should be taken; 0 for now.

        That is now while another slot would be left, and where files are among the sources: they lose nothing.
        """
        if not self._infer_ns or len(flights) < max(1, slots - 1):
            return 0.0
        quickest_ns = min(self._infer_ns)
        if quickest_ns < WORTHWHILE_NS or not all(frame.live for frame in flights[-1].frames):
            return 0.0
        begun_ns = max(flights[0].t_loaded_ns, self._collected_ns)
        due_ns = begun_ns + quickest_ns - max(self._preprocess_ns) - MARGIN_NS
        return max(0.0, (due_ns - self._clock()) / 1e9)

    def forget(self) -> None:
        """Another backend takes over."""
        self._infer_ns.clear()
        self._preprocess_ns.clear()
