"""A capture thread on its own, with scripted sources: what tests of the ladder share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import CaptureThread, Deadlines, Job
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.interfaces import Source
from edgeinfer.messages import Reason, State
from edgeinfer.telemetry.snapshot import SourceSnapshot
from edgeinfer.types import Capture, Frame

FAST = Deadlines(stall=0.2, timeout=0.5, first=0.8, grace=0.2)
"""The usual patience, ten times shorter."""


class NoJitter(Random):
    """Every delay is a tenth of its ceiling, so that tests do not wait."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 10


class Witness(Ledger):
    """Books that remember every state, however short."""

    def __init__(self) -> None:
        super().__init__(time.monotonic_ns)
        self.seen: list[tuple[str, str | None]] = [("starting", None)]

    def set_state(self, state: State, reason: Reason | None = None) -> None:
        super().set_state(state, reason)
        now = state, reason.code if reason else None
        if self.seen[-1] != now:
            self.seen.append(now)


@dataclass
class Desk:
    """The other end of a mailbox: takes every frame and books it as inferred, as the pipeline does."""

    ledger: Witness = field(default_factory=Witness)
    mailbox: Mailbox = field(default_factory=Mailbox)
    frames: list[Frame] = field(default_factory=list)
    _looked_at: int = 0

    @property
    def states(self) -> list[tuple[str, str | None]]:
        """Every state so far, with its reason's code."""
        return list(self.ledger.seen)

    def work(self) -> None:
        """One turn: what waits is taken."""
        for frame in self.mailbox.take(8, 0.005):
            self.frames.append(frame)
            self.ledger.infer()

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 30) -> float:
        """Works until `condition` holds. Returns how long that took, in seconds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < timeout_s, f"{what} did not happen; {self.states}"
            self.work()
        self.work()
        return time.monotonic() - started

    def state_is(self, *names: str) -> Callable[[], bool]:
        """Whether the source came to such a state, after the one that was last waited for."""

        def came() -> bool:
            for index in range(self._looked_at, len(self.ledger.seen)):
                if self.ledger.seen[index][0] in names:
                    self._looked_at = index
                    return True
            return False

        return came

    def code(self, state: str) -> str | None:
        """The code of the reason that a state last had."""
        return next(code for name, code in reversed(self.ledger.seen) if name == state)

    def got(self, count: int) -> Callable[[], bool]:
        """Whether so many more frames have come than there are now."""
        wanted = len(self.frames) + count
        return lambda: len(self.frames) >= wanted

    @property
    def books(self) -> SourceSnapshot:
        return self.ledger.snapshot()

    def check_books(self) -> None:
        books = self.books
        assert books.captured == books.inferred + sum(books.dropped.values()) + books.in_flight


@contextmanager
def capturing(
    desk: Desk, open_source: Callable[[], Source], limits: Deadlines = FAST, **settings: Any
) -> Iterator[CaptureThread]:
    """A running capture thread; stopped at the end, and its books checked."""
    job = Job("cam", open_source, desk.ledger, desk.mailbox, limits=limits, random=NoJitter(0), **settings)
    thread = CaptureThread(job)
    thread.start()
    yield thread
    thread.stop()
    thread.join(20)
    assert not thread.is_alive()
    desk.check_books()


class Script:
    """A live source whose every read is a step of a script: a number is a picture, an exception is raised, a callable
    is called, anything else given as it is. At the end of the script it gives pictures for ever."""

    live, fps = True, 0.0

    def __init__(self, *steps: Any, live: bool = True) -> None:
        self._steps = list(steps)
        self.live = live
        self.closed = threading.Event()

    def read(self) -> Capture | None:
        step = self._steps.pop(0) if self._steps else None
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step()
        elif step is not None and not isinstance(step, int):
            given: Capture = step
            return given
        time.sleep(0.005)
        return picture(step if isinstance(step, int) else time.monotonic_ns())

    def close(self) -> None:
        self.closed.set()


class Openings:
    """Opens one prepared source after another, the last one again and again; an exception is raised."""

    def __init__(self, *sources: Any) -> None:
        self.sources = list(sources)
        self.count = 0

    def __call__(self) -> Source:
        self.count += 1
        source = self.sources[min(self.count, len(self.sources)) - 1]
        if isinstance(source, BaseException):
            raise source
        chosen: Source = source() if isinstance(source, type) or callable(source) else source
        return chosen


def picture(value: int = 0) -> Capture:
    """A small picture that differs with `value`."""
    image = np.full((8, 8, 3), value % 251, np.uint8)
    image.flags.writeable = False
    return Capture(image, time.time_ns(), time.monotonic_ns())
