"""The clocks of the measurements: what comes before the warm-up is over does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeinfer.errors import InputError
from edgeinfer.messages import DetectionsMessage, Message
from edgeinfer.types import Result

WARM_UP = 10
"""So many frames go first, while libraries load and caches fill."""
LOOK_S = 1.0
"""So often the children's processor time is looked at, which takes longer than a frame."""

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


@dataclass(frozen=True, slots=True)
class Mark:
    """So many results had come out at a time; processor time of this process until then."""

    count: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Glance:
    """Processor time of the children when so many results had come out."""

    count: int
    wall_s: float
    children_s: float


class Stopwatch:
    """A sink that notes when the last result of the warm-up and the last of all came out, on all clocks.

    `look` is called by another thread: the children's time takes longer to find out than a result may wait.
    """

    blocks = False

    def __init__(
        self, wall: Seconds = time.perf_counter, cpu: Seconds = time.process_time, children: Seconds = lambda: 0.0
    ) -> None:
        self.count = 0
        self._wall, self._cpu, self._children = wall, cpu, children
        self._first = self._last = Mark()
        self._glances: list[Glance] = []

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if not isinstance(message, DetectionsMessage):
            return
        self._last = Mark(self.count + 1, self._wall(), self._cpu())
        self.count += 1
        if self.count == WARM_UP:
            self._first = self._last

    def look(self, last: bool = False) -> None:
        """Looks at the children's time where that is due: after the warm-up, from then on every second, and last."""
        now = self._wall()
        if self.is_warm and (last or not self._glances or now - self._glances[-1].wall_s >= LOOK_S):
            self._glances.append(Glance(self.count, now, self._children()))

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    @property
    def is_warm(self) -> bool:
        """Whether what happens now counts."""
        return self.count >= WARM_UP

    def per_frame(self) -> tuple[float, float]:
        """Seconds and CPU seconds per frame. Raises InputError where no more than WARM_UP frames came.

        The children's are of the frames between the first look and the last.
        """
        frames = self.count - WARM_UP
        if frames < 1:
            raise InputError(
                f"{self.count} frames came out, and measuring takes more than {WARM_UP}",
                "give more --frames, or a longer video",
            )
        first, last = self._first, self._last
        own_s = (last.cpu_s - first.cpu_s) / frames
        return (last.wall_s - first.wall_s) / frames, own_s + self._children_per_frame()

    def _children_per_frame(self) -> float:
        if len(self._glances) < 2:
            return 0.0
        first, last = self._glances[0], self._glances[-1]
        return (last.children_s - first.children_s) / max(1, last.count - first.count)
