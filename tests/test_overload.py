"""More frames than can be inferred, on a virtual clock: nothing is lost from the books, nobody starves, latency is
bounded whatever the overload."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import Job
from edgeinfer.flow.capture.intake import Intake
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.types import Capture, Frame
from tests.capturing import Desk, Script, capturing

MS = 1_000_000
IMAGE = np.zeros((2, 2, 3), np.uint8)
SECONDS = 10
NO_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]


@dataclass
class Camera:
    """A camera on the virtual clock: a frame every `period_ns`, `delay_ns` after its capture."""

    period_ns: int
    intake: Intake
    ledger: Ledger
    due_ns: int

    def deliver(self, delay_ns: int) -> None:
        frame = self.intake.book(Capture(IMAGE, 0, self.due_ns - delay_ns), live=True)
        assert frame is not None
        self.intake.hand_over(frame)
        self.due_ns += self.period_ns


class World:
    """The whole path from cameras to results, with inference that takes `exec_ms` a batch."""

    def __init__(self, rates: list[float], batch: int, exec_ms: float, max_age_ms: int, delay_ms: int = 0) -> None:
        self.now_ns = 0
        self.batch, self.exec_ns, self.delay_ns = batch, int(exec_ms * MS), delay_ms * MS
        self.mailbox = Mailbox(1, self.clock)
        self.cameras: dict[str, Camera] = {}
        self.ages_ns: list[int] = []
        self._flight: list[Frame] = []
        self._done_ns = 0
        for number, rate in enumerate(rates):
            ledger = Ledger(self.clock)
            job = Job(f"c{number}", Script, ledger, self.mailbox, max_age_ns=max_age_ms * MS, clock=self.clock)
            period = int(1e9 / rate)
            self.cameras[job.name] = Camera(
                period, Intake(job, threading.Event()), ledger, period * number // len(rates)
            )

    def clock(self) -> int:
        return self.now_ns

    def run(self, seconds: float, check: bool = True) -> None:
        while self.now_ns < seconds * 1e9:
            self._take()
            camera = min(self.cameras.values(), key=lambda camera: camera.due_ns)
            if self._flight and self._done_ns <= camera.due_ns:
                self.now_ns = self._done_ns
                self._finish()
            else:
                self.now_ns = camera.due_ns
                camera.deliver(self.delay_ns)
            if check:
                self.check_books()

    def check_books(self) -> None:
        for camera in self.cameras.values():
            books = camera.ledger.snapshot()
            assert books.captured == books.inferred + sum(books.dropped.values()) + books.in_flight
            assert books.in_flight <= 2, "one waits and one is inferred"

    def _take(self) -> None:
        if not self._flight:
            self._flight = self.mailbox.take(self.batch, 0)
            self._done_ns = self.now_ns + self.exec_ns

    def _finish(self) -> None:
        for frame in self._flight:
            self.cameras[frame.source].ledger.infer()
            self.ages_ns.append(self.now_ns - frame.capture.t_mono_ns)
        self._flight = []

    def inferred(self) -> list[int]:
        return [camera.ledger.inferred for camera in self.cameras.values()]


RATES = st.lists(st.floats(5, 120), min_size=1, max_size=8)


@given(RATES, st.integers(1, 8), st.floats(1, 150), st.integers(100, 1000), st.integers(0, 300))
@example([30.0] * 8, 1, 40.0, 500, 0)
@settings(max_examples=40, deadline=None)
@pytest.mark.slow
def test_books_balance_and_age_is_bounded(
    rates: list[float], batch: int, exec_ms: float, max_age_ms: int, delay_ms: int
) -> None:
    world = World(rates, batch, exec_ms, max_age_ms, delay_ms)
    world.run(5)
    assert all(age <= max_age_ms * MS + world.exec_ns for age in world.ages_ns)


def fair_share(rates: list[float], capacity: float) -> float:
    """The rate that nobody exceeds where all who want less get what they want, and the others the same (max-min)."""
    left = capacity
    for number, rate in enumerate(sorted(rates)):
        if rate > left / (len(rates) - number):
            return left / (len(rates) - number)
        left -= rate
    return max(rates)


def check_shares(rates: list[float], load: float) -> None:
    """Cameras that want `load` times as many frames as can be inferred."""
    world = World(rates, 1, 1000 * load / sum(rates), 10_000)
    world.run(SECONDS, check=False)
    share = fair_share(rates, sum(rates) / load)
    for count, rate in zip(world.inferred(), rates, strict=True):
        got, due = count / SECONDS, min(rate, share)
        assert 0.75 * due - 2 / SECONDS <= got <= 1.34 * due + 2 / SECONDS


@given(st.lists(st.floats(5, 120), min_size=2, max_size=8), st.floats(1.2, 8))
@settings(max_examples=60, deadline=None, phases=NO_SHRINKING)
@pytest.mark.slow
def test_shares_are_fair(rates: list[float], load: float) -> None:
    """Cameras that want more than their share get the same, however much more; who wants less gets what he wants."""
    check_shares(rates, load)


@pytest.mark.parametrize("load", [1.5, 5.0])
def test_a_fast_camera_takes_nothing_from_a_slow_one(load: float) -> None:
    check_shares([5.0, 120.0, 120.0, 30.0], load)


@pytest.mark.parametrize("factor", [0.5, 1, 2, 4, 10])
def test_inference_is_kept_busy_whatever_the_overload(factor: float) -> None:
    world = World([30.0] * 4, 1, 1000 / 120 * factor, 500)
    world.run(SECONDS)
    capacity = min(120.0, 120 / factor)
    assert sum(world.inferred()) / SECONDS == pytest.approx(capacity, rel=0.05)


def test_a_frame_that_is_too_old_when_its_turn_comes_is_dropped_with_its_reason() -> None:
    world = World([10.0], 1, 10, max_age_ms=200, delay_ms=300)
    world.run(5)
    books = world.cameras["c0"].ledger.snapshot()
    assert books.inferred == 0
    assert books.dropped == {"stale": books.captured - books.in_flight}
    patient = World([10.0], 1, 10, max_age_ms=400, delay_ms=300)
    patient.run(5)
    assert not patient.cameras["c0"].ledger.snapshot().dropped


def test_a_file_has_no_age() -> None:
    desk = Desk()

    class Old(Script):
        def read(self) -> Capture | None:
            return Capture(IMAGE, 0, time.monotonic_ns() - 60_000_000_000)

    with capturing(desk, lambda: Old(live=False)):
        desk.until(desk.got(5), "frames")
    assert "stale" not in desk.books.dropped
    live = Desk()
    with capturing(live, Old, max_age_ns=None):
        live.until(live.got(5), "frames without a limit")
