"""The clocks of the measurements: what comes before the warm-up is over does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from edgeinfer.errors import InputError
from edgeinfer.messages import DetectionsMessage, Message
from edgeinfer.types import Result

WARM_UP = 10
"""So many frames go first, while libraries load and caches fill."""

Seconds = Callable[[], float]
T = TypeVar("T")


def rate(infer: Callable[[T], object], inputs: Sequence[T], frames: int, clock: Seconds = time.perf_counter) -> float:
    """How often a second `infer` runs, over `frames` runs on `inputs` in turn, after the warm-up."""
    for index in range(WARM_UP):
        infer(inputs[index % len(inputs)])
    started = clock()
    for index in range(frames):
        infer(inputs[index % len(inputs)])
    return frames / (clock() - started)


class Stopwatch:
    """A sink that notes when the last result of the warm-up and the last of all came out, on both clocks."""

    blocks = False

    def __init__(self, wall: Seconds = time.perf_counter, cpu: Seconds = time.process_time) -> None:
        self.count = 0
        self._wall, self._cpu = wall, cpu
        self._first = self._last = (0.0, 0.0)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if not isinstance(message, DetectionsMessage):
            return
        self.count += 1
        self._last = (self._wall(), self._cpu())
        if self.count == WARM_UP:
            self._first = self._last

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    def per_frame(self) -> tuple[float, float]:
        """Seconds and CPU seconds per frame. Raises InputError where no more than WARM_UP frames came."""
        frames = self.count - WARM_UP
        if frames < 1:
            raise InputError(
                f"{self.count} frames came out, and measuring takes more than {WARM_UP}",
                "give more --frames, or a longer video",
            )
        return (self._last[0] - self._first[0]) / frames, (self._last[1] - self._first[1]) / frames
