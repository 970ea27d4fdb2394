"""What a capture thread is made of, part by part, on a virtual clock: its patience, its delays, and what it lets in."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.config.settings import LadderConfig
from edgeinfer.errors import InputError, StalledError
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import Deadlines, Hung, Job
from edgeinfer.flow.capture.backoff import (
    BASE_S,
    CAP_S,
    LASTING_BASE_S,
    LASTING_CAP_S,
    SILENT_CAP_S,
    STEADY_S,
    Backoff,
)
from edgeinfer.flow.capture.frozen import FrozenDetector
from edgeinfer.flow.capture.intake import MAX_TOLD, Intake
from edgeinfer.flow.capture.reader import Reader
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.guard.limits import MAX_HUNG
from edgeinfer.interfaces import NoRoom, UnreadableItem
from edgeinfer.telemetry.governor import Governor
from edgeinfer.types import Capture, DecoderChoice, Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)
SECOND = 1_000_000_000


class Clock:
    """Nanoseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.ns = 100 * SECOND

    def __call__(self) -> int:
        return self.ns


class Bench:
    """An intake with the books and the mailbox that it works on."""

    def __init__(self, open_source: Any = None, **settings: Any) -> None:
        self.clock = Clock()
        self.stopping = threading.Event()
        self.ledger = Ledger(self.clock)
        self.mailbox = Mailbox(1, self.clock)
        self.job = Job("cam", open_source, self.ledger, self.mailbox, clock=self.clock, **settings)
        self.intake = Intake(self.job, self.stopping)

    def give(self, live: bool = True, media_ns: int | None = None, image: Any = IMAGE) -> Frame | None:
        """One picture of now, booked and handed over. Returns it as it came out of the mailbox, if it did."""
        frame = self.intake.book(Capture(image, 0, self.clock.ns, "arrival", media_ns), live)
        if frame is not None:
            self.intake.hand_over(frame)
        out = self.mailbox.take(1, 0)
        for _ in out:
            self.ledger.infer()
        return out[0] if out else None

    @property
    def dropped(self) -> dict[str, int]:
        return self.ledger.snapshot().dropped


# Delays


class Longest(Random):
    """Draws the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Shortest(Random):
    """Draws the lower end."""

    def uniform(self, a: float, b: float) -> float:
        return a


def test_delays_double_up_to_their_ceiling_and_draw_from_all_of_it() -> None:
    longest, shortest = Backoff(Longest()), Backoff(Shortest())
    assert [longest.after_failure(silent=False) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [shortest.after_failure(silent=False) for _ in range(8)] == [0] * 8
    silent = Backoff(Longest())
    assert [silent.after_failure(silent=True) for _ in range(5)] == [0.5, 1, 2, 4, 4]


def test_delays_after_what_lasts_double_and_are_never_short() -> None:
    longest, shortest = Backoff(Longest()), Backoff(Shortest())
    assert [longest.after_lasting_failure() for _ in range(5)] == [30, 60, 120, 240, 300]
    assert [shortest.after_lasting_failure() for _ in range(5)] == [30, 30, 60, 120, 150]


def test_cameras_that_fail_together_do_not_come_back_together() -> None:
    delays = [Backoff(Random(seed)).after_failure(silent=False) for seed in range(200)]
    assert min(delays) < 0.1 * BASE_S < 0.9 * BASE_S < max(delays)
    assert len(set(delays)) > 190


@given(st.integers(), st.lists(st.sampled_from(["failure", "silent", "lasting"]), max_size=40))
def test_every_delay_is_within_its_ceiling_and_the_two_kinds_are_counted_apart(seed: int, kinds: list[str]) -> None:
    one, same = Backoff(Random(seed)), Backoff(Random(seed))
    failures = 0
    for kind in kinds:
        if kind == "lasting":
            delay = one.after_lasting_failure()
            assert LASTING_BASE_S <= delay <= LASTING_CAP_S
            assert delay == same.after_lasting_failure()
            continue
        delay = one.after_failure(kind == "silent")
        assert 0 <= delay <= min(SILENT_CAP_S if kind == "silent" else CAP_S, BASE_S * 2**failures)
        assert delay == same.after_failure(kind == "silent")
        failures += 1


def test_a_million_failures_are_no_overflow() -> None:
    backoff = Backoff(Longest(), 10**6, 10**6)
    assert (backoff.after_failure(silent=False), backoff.after_lasting_failure()) == (CAP_S, LASTING_CAP_S)


def test_a_minute_of_frames_forgives_and_less_does_not() -> None:
    backoff = Backoff(Longest())
    for _ in range(10):
        backoff.after_failure(silent=False)
        backoff.after_lasting_failure()
    backoff.frames_came(STEADY_S - 0.001)
    assert backoff.after_failure(silent=False) == CAP_S
    assert backoff.after_lasting_failure() == LASTING_CAP_S
    backoff.frames_came(STEADY_S)
    assert backoff.after_failure(silent=False) == BASE_S
    assert backoff.after_lasting_failure() == LASTING_BASE_S


# Patience


def test_a_source_without_settings_gets_those_that_are_documented() -> None:
    usual = LadderConfig()
    job = Bench().job
    assert (job.limits.stall, job.limits.timeout) == (usual.stall_s, usual.timeout_s) == (2.5, 5.0)
    assert (job.wait, job.reconnect, job.frozen_s) == (usual.wait, usual.reconnect, usual.frozen_s)
    assert job.max_age_ns == 500_000_000


@pytest.mark.parametrize(
    ("fps", "expected"), [(30, (2.5, 5, 20)), (1.25, (2.5, 5, 20)), (0.5, (6, 12, 20)), (0.1, (30, 60, 60))]
)
def test_of_a_slow_camera_three_periods_must_pass(fps: float, expected: tuple[float, float, float]) -> None:
    limits = Deadlines(grace=7).at_rate(fps)
    assert (limits.stall, limits.timeout, limits.first, limits.grace) == (*expected, 7)


def test_the_third_thread_that_hangs_is_the_last_until_one_comes_back() -> None:
    hung, released = Hung(), threading.Event()
    threads = [threading.Thread(target=released.wait, name="read:cam", daemon=True) for _ in range(MAX_HUNG)]
    try:
        for number, thread in enumerate(threads):
            assert hung.count() == number
            assert not hung.full
            thread.start()
            hung.add(thread)
        assert hung.full
    finally:
        released.set()
    for thread in threads:
        thread.join(30)
    assert hung.count() == 0


# What is let in


@given(st.sampled_from([5.0, 7.5, 12.0, 20.0, 29.0, 30.0]), st.booleans())
def test_max_fps_keeps_its_rate_and_does_not_drift(max_fps: float, live: bool) -> None:
    """A camera by our clock whatever it says of its own, a file by its own, however fast it is read."""
    bench = Bench(max_fps=max_fps)
    start, kept = bench.clock.ns, 0
    for number in range(600):
        bench.clock.ns = start + number * SECOND // (30 if live else 1000)
        kept += bench.give(live, 0 if live else number * SECOND // 30) is not None
    assert kept == pytest.approx(20 * max_fps, abs=1.5)
    assert bench.dropped.get("max_fps", 0) == 600 - kept


def test_after_a_pause_max_fps_does_not_make_up_for_it() -> None:
    bench = Bench(max_fps=10)
    assert bench.give() is not None
    bench.clock.ns += 60 * SECOND
    kept = 0
    for _ in range(30):
        kept += bench.give() is not None
        bench.clock.ns += SECOND // 30
    assert kept == 10


def test_another_max_fps_counts_from_the_next_frame_on() -> None:
    bench = Bench()
    bench.intake.adjust(Job("cam", bench.job.open, bench.ledger, bench.mailbox, max_fps=1.0, clock=bench.clock))
    assert bench.give() is not None
    assert bench.give() is None
    assert bench.dropped == {"max_fps": 1}


@pytest.mark.parametrize(("stopped", "reason"), [(False, "overload"), (True, "shutdown")])
def test_a_frame_that_is_replaced_has_the_reason_that_is_true(stopped: bool, reason: str) -> None:
    bench = Bench()
    first, second = (bench.intake.book(Capture(IMAGE, 0, bench.clock.ns), live=True) for _ in range(2))
    assert first is not None
    assert second is not None
    bench.intake.hand_over(first)
    if stopped:
        bench.stopping.set()
        bench.mailbox.close()
    bench.intake.hand_over(second)
    assert bench.dropped == {reason: 1}


def test_a_file_that_is_stopped_while_it_waits_books_its_frame_as_shut_down() -> None:
    bench = Bench()
    bench.mailbox.put_wait(Frame("cam", 99, Capture(IMAGE, 0, 0), live=False), 0)
    frame = bench.intake.book(Capture(IMAGE, 0, bench.clock.ns), live=False)
    assert frame is not None
    bench.stopping.set()
    bench.intake.hand_over(frame)
    assert bench.dropped == {"shutdown": 1}
    assert bench.ledger.snapshot().in_flight == 0


def test_a_live_frame_that_waits_too_long_is_stale_and_a_files_never_is() -> None:
    for live, dropped in ((True, {"stale": 1}), (False, {})):
        bench = Bench(max_age_ns=SECOND)
        frame = bench.intake.book(Capture(IMAGE, 0, bench.clock.ns), live)
        assert frame is not None
        bench.intake.hand_over(frame)
        bench.clock.ns += SECOND + 1
        assert len(bench.mailbox.take(1, 0)) == (not live)
        assert bench.dropped == dropped


def test_heat_thins_live_sources_out_and_no_file() -> None:
    governor = Governor()
    governor.factor = 0.5
    live, file = Bench(governor=governor), Bench(governor=governor)
    for _ in range(10):
        live.give(live=True)
        file.give(live=False)
    assert live.dropped == {"thermal": 5}
    assert file.dropped == {}


def test_a_picture_that_does_not_change_is_dropped_once_it_has_been_shown_for_so_long() -> None:
    bench = Bench(frozen_s=2.0)
    taken = []
    for _ in range(5):
        taken.append(bench.give() is not None)
        bench.clock.ns += SECOND
    taken.append(bench.give(image=IMAGE + 1) is not None)
    taken.append(bench.give(image=IMAGE + 1) is not None)
    assert taken == [True, True, False, False, False, True, True]
    assert bench.dropped == {"frozen": 3}


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_change_anywhere_makes_a_new_picture(height: int, width: int, data: st.DataObject) -> None:
    """One that is at least as large as a cell of the grid, wherever it lies; a picture that is the same stays old."""
    detector = FrozenDetector()
    image = np.zeros((height, width, 3), np.uint8)
    assert detector.same_for_ns(image, 5) == 0
    assert detector.same_for_ns(image.copy(), 17) == 12
    rows, columns = max(1, height // 64), max(1, width // 64)
    top = data.draw(st.integers(0, (height - 1) // rows)) * rows
    left = data.draw(st.integers(0, (width - 1) // columns)) * columns
    image[top : top + rows, left : left + columns, data.draw(st.integers(0, 2))] = 1
    assert detector.same_for_ns(image, 30) == 0
    assert detector.same_for_ns(image, 31) == 1


def test_unreadable_pictures_are_booked_and_the_first_few_are_named(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    assert bench.intake.trouble(live=False) is None
    with caplog.at_level(logging.WARNING):
        bench.intake.skip("a.png: empty file")
        assert str(bench.intake.trouble(live=False)) == "a.png: empty file"
        for number in range(MAX_TOLD + 5):
            bench.intake.skip(f"{number}.png: empty file")
    trouble = bench.intake.trouble(live=False)
    assert isinstance(trouble, InputError)
    assert str(trouble) == f"{MAX_TOLD + 6} pictures could not be read, the first: a.png: empty file"
    assert len(caplog.records) == MAX_TOLD
    assert bench.intake.trouble(live=True) is None, "a camera goes on with its next picture"
    books = bench.ledger.snapshot()
    assert (books.captured, books.dropped, books.in_flight) == (MAX_TOLD + 6, {"unreadable": MAX_TOLD + 6}, 0)


def test_a_limit_counts_results_and_of_a_file_what_will_become_one() -> None:
    bench = Bench(limit=2)
    bench.ledger.capture()
    bench.ledger.infer()
    bench.ledger.capture()
    assert bench.intake.limit_reached(live=False)
    assert not bench.intake.limit_reached(live=True), "what a camera has in flight may still be dropped"
    bench.ledger.infer()
    assert bench.intake.limit_reached(live=True)
    assert not Bench().intake.limit_reached(live=True)


# The thread that reads, and is given up


class Held:
    """A source whose every call is held until the test lets it go on. `script` says what each read does."""

    def __init__(self, *script: Any, live: bool = True, fps: float = 30.0) -> None:
        self.live, self.fps = live, fps
        self.script = list(script)
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.closed = threading.Event()
        self.reads = 0

    def hold(self) -> None:
        self.entered.release()
        assert self.go.acquire(timeout=60)

    def open(self) -> Held:
        self.hold()
        return self

    def read(self) -> Capture | None:
        self.reads += 1
        self.hold()
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        return step

    def close(self) -> None:
        self.closed.set()


class Watched:
    """A reader of a held source."""

    def __init__(self, source: Held, **settings: Any) -> None:
        self.bench = Bench(source.open, limits=Deadlines(stall=1, timeout=2, first=10, grace=3), **settings)
        self.source = source
        self.ended = threading.Event()
        self.reader = Reader(self.bench.job, self.bench.intake, self.ended.set)
        self.reader.start()
        self.wait()

    def wait(self) -> None:
        """Until it is inside the next call."""
        assert self.source.entered.acquire(timeout=60)

    def next(self) -> None:
        """Lets the call come back, and waits for the next one."""
        self.source.go.release()
        self.wait()

    def end(self) -> None:
        for _ in range(10):
            self.source.go.release()
        assert self.ended.wait(60)
        self.reader.join(60)
        assert self.source.closed.is_set()

    def left_s(self) -> float:
        return (self.reader.call_until_ns - self.bench.clock.ns) / 1e9


def picture() -> Capture:
    return Capture(np.zeros((2, 2, 3), np.uint8), 0, 0)


@pytest.fixture
def watched() -> Iterator[Watched]:
    found = Watched(Held(picture(), picture()))
    yield found
    found.end()


def test_every_call_into_a_camera_has_its_deadline(watched: Watched) -> None:
    assert watched.left_s() == 10 + 3, "opening takes its time"
    assert watched.reader.live is None
    watched.bench.clock.ns += 8 * SECOND
    watched.next()
    assert watched.left_s() == 2 + 3
    assert watched.reader.live is True
    assert watched.reader.first_frame_ns is None
    assert watched.reader.last_frame_ns == watched.bench.clock.ns, "its patience starts when it is open"
    watched.bench.clock.ns += SECOND
    watched.next()
    assert watched.reader.first_frame_ns == watched.bench.clock.ns
    assert watched.bench.ledger.state == ("running", None)
    first = watched.bench.clock.ns
    watched.bench.clock.ns += SECOND
    watched.next()
    assert (watched.reader.first_frame_ns, watched.reader.last_frame_ns) == (first, watched.bench.clock.ns)


def test_a_camera_that_is_slow_has_more_time() -> None:
    watched = Watched(Held(fps=0.5))
    watched.next()
    assert (watched.reader.limits.stall, watched.reader.limits.timeout) == (6, 12)
    assert watched.left_s() == 12 + 3
    watched.end()
    assert watched.reader.call_until_ns == math.inf, "nothing is expected of a thread that is in no call"


def test_a_camera_that_has_nothing_at_once_is_not_asked_without_a_pause() -> None:
    pauses = list[float]()

    class Noting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            return super().wait(0)

    watched = Watched(Held(StalledError("nothing"), StalledError("nothing")))
    watched.reader._stopping = Noting()
    watched.next()
    watched.next()
    watched.next()
    assert pauses == [0.1, 0.1]
    watched.end()


def test_closing_a_camera_has_its_deadline_too() -> None:
    source = Held()
    source.close = source.hold  # type: ignore[method-assign]
    watched = Watched(source)
    watched.next()
    watched.next()
    assert watched.left_s() == 2 + 3
    source.go.release()
    assert watched.ended.wait(60)


def test_a_picture_that_stays_the_same_is_no_sign_of_life() -> None:
    watched = Watched(Held(picture(), picture(), picture()), frozen_s=1.0)
    watched.next()
    watched.next()
    seen = watched.reader.last_frame_ns
    watched.bench.clock.ns += SECOND
    watched.next()
    assert watched.reader.frozen
    assert watched.reader.last_frame_ns == seen
    watched.end()


def test_reading_a_file_may_take_for_ever_but_opening_it_may_not() -> None:
    watched = Watched(Held(live=False))
    assert watched.left_s() == 13
    watched.next()
    assert watched.reader.call_until_ns == math.inf
    assert watched.reader.live is False
    assert not watched.reader.give_up()
    watched.end()


def test_a_thread_is_given_up_after_its_deadline_and_not_before(watched: Watched) -> None:
    watched.next()
    watched.bench.clock.ns += 5 * SECOND
    assert not watched.reader.give_up()
    watched.bench.clock.ns += 1
    assert watched.reader.give_up()


@pytest.mark.parametrize(
    "late", [picture(), UnreadableItem("damaged"), StalledError("nothing came")], ids=["picture", "damaged", "nothing"]
)
def test_a_thread_that_was_given_up_books_nothing_and_lets_go_of_the_device(late: Any) -> None:
    watched = Watched(Held(late, late, late))
    watched.next()
    watched.bench.clock.ns += 6 * SECOND
    assert watched.reader.give_up()
    watched.source.go.release()
    assert watched.ended.wait(60), "it goes on reading a device that another thread reads now"
    assert watched.source.reads == 1
    assert watched.source.closed.is_set()
    assert watched.bench.ledger.snapshot().captured == 0


def test_a_thread_that_was_given_up_while_opening_closes_what_it_opened_unread() -> None:
    watched = Watched(Held(picture()))
    watched.bench.clock.ns += 14 * SECOND
    assert watched.reader.give_up()
    watched.source.go.release()
    assert watched.ended.wait(60)
    assert (watched.source.reads, watched.source.closed.is_set()) == (0, True)


def test_a_camera_that_is_stopped_gives_no_more_and_a_files_last_picture_counts() -> None:
    for live, captured in ((True, 0), (False, 1)):
        watched = Watched(Held(picture(), picture(), live=live))
        watched.next()
        watched.reader.stop()
        watched.source.go.release()
        assert watched.ended.wait(60)
        assert watched.bench.ledger.snapshot().captured == captured
        assert watched.source.closed.is_set()


def test_what_a_camera_says_of_having_nothing_is_kept_until_it_has_something() -> None:
    watched = Watched(Held(StalledError("no frame within 2 s"), picture()))
    watched.next()
    watched.next()
    assert watched.reader.stall == "no frame within 2 s"
    watched.next()
    assert watched.reader.stall == ""
    watched.end()
    assert watched.reader.error is None


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt(), ValueError("x"), MemoryError()])
def test_no_way_out_of_a_plugin_passes_for_the_end_of_its_source(end: BaseException) -> None:
    watched = Watched(Held(end))
    watched.next()
    watched.end()
    assert type(end).__name__ in str(watched.reader.error)


def test_an_error_keeps_no_traceback_and_so_no_picture_alive() -> None:
    cause = ValueError("inner")
    error = InputError("gone")
    error.__cause__ = cause
    watched = Watched(Held(error))
    watched.next()
    watched.end()
    assert watched.reader.error is error
    assert not any((error.__traceback__, error.__cause__, error.__context__))


# Sources whose pictures lie in memory of their own, of which there is so much


class Narrow:
    """See `Source`: a picture may be read only while `room` says so; then the source ends."""

    decoder = DecoderChoice("nvdec", "the GPU has it")
    fps = 0.0

    def __init__(self, bench: Bench, live: bool, room: Callable[[int], bool], pictures: int) -> None:
        self.live, self._bench, self._room, self._left, self.refused = live, bench, room, pictures, 0

    def read(self) -> Capture | None:
        if self._left and not self._room(self.refused):
            self.refused += 1
            raise NoRoom("3 of its pictures are in use")
        self._left -= 1
        return None if self._left < 0 else Capture(IMAGE, 0, self._bench.clock.ns)

    def close(self) -> None:
        pass


def test_without_room_the_frame_that_waits_gives_way() -> None:
    bench = Bench()
    source = Narrow(bench, True, lambda refused: refused > 0 or len(bench.mailbox) == 0, 3)
    reader = Reader(replace(bench.job, open=lambda: source), bench.intake, lambda: None)
    reader.run()
    assert reader.error is None
    assert [frame.frame_id for frame in bench.mailbox.take(8, 0)] == [2]
    assert source.refused == 1
    assert bench.dropped == {"overload": 2}, "one gave way before it was replaced"


def test_a_file_without_room_waits_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeinfer.flow.capture.reader.ROOM_S", 0)
    bench = Bench()
    source = Narrow(bench, False, lambda refused: refused >= 5, 1)
    reader = Reader(replace(bench.job, open=lambda: source), bench.intake, lambda: None)
    reader.run()
    assert (source.refused, bench.dropped, len(bench.mailbox)) == (5, {}, 1)


def test_what_decodes_a_source_is_in_its_books() -> None:
    bench = Bench()
    assert bench.ledger.snapshot().decoder is None
    Reader(replace(bench.job, open=lambda: Narrow(bench, True, bool, 0)), bench.intake, lambda: None).run()
    assert bench.ledger.snapshot().decoder == ("nvdec", "the GPU has it")
