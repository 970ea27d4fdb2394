"""The ladder of a source, second by second: on a clock that passes when the capture thread waits, with readers that do
what a script says."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from edgeinfer.errors import (
    CameraError,
    ConfigError,
    EdgeinferError,
    FatalError,
    InputError,
    StalledError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import CaptureThread, Deadlines, Hung, Job, ladder
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.messages import Reason, State

SECOND = 1_000_000_000
LIMITS = Deadlines(stall=1, timeout=3, first=10, grace=2)
Step = tuple[float, Callable[["Reader"], None]]


class Longest(Random):
    """Draws the upper end: every delay is its ceiling."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Turn:
    """An event; waiting for it is what makes time pass."""

    def __init__(self, world: World) -> None:
        self._world, self._set = world, False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float) -> bool:
        self._world.pass_time(timeout, self)
        return self._set


class Books(Ledger):
    """Books that note when a state came."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self._world = world
        self.history: list[tuple[float, str, str | None]] = []
        self.texts: list[str] = []

    def set_state(self, state: State, reason: Reason | None = None) -> None:
        super().set_state(state, reason)
        self.history.append((round(self._world.s, 1), state, reason.code if reason else None))
        self.texts.append(reason.text if reason else "")


class Reader:
    """One life of a source: its steps happen so many seconds after its start."""

    name = "read:cam"

    def __init__(self, world: World, job: Job, done: Callable[[], None], steps: list[Step]) -> None:
        self.error: EdgeinferError | None = None
        self.live: bool | None = None
        self.finished = self.frozen = self.deaf = False
        self.stall = ""
        self.limits = job.limits
        self.first_frame_ns: int | None = None
        self.last_frame_ns = world.ns
        self.call_until_ns = world.ns + (job.limits.first + job.limits.grace) * SECOND
        self.stopped_s: float | None = None
        self.world, self.job, self._done, self._steps = world, job, done, steps

    def start(self) -> None:
        for after_s, act in self._steps:
            self.world.schedule(after_s, lambda act=act: act(self))  # type: ignore[misc]

    def stop(self) -> None:
        if self.stopped_s is None:
            self.stopped_s = round(self.world.s, 1)
            if not self.deaf:
                self.world.schedule(0, self.end)

    def give_up(self) -> bool:
        return self.world.ns > self.call_until_ns

    def is_alive(self) -> bool:
        return not self.finished

    def end(self, error: EdgeinferError | None = None) -> None:
        if not self.finished:
            self.error, self.finished = error, True
            self._done()


def opens(reader: Reader) -> None:
    reader.live, reader.last_frame_ns, reader.call_until_ns = True, reader.world.ns, math.inf


def opens_file(reader: Reader) -> None:
    reader.live, reader.call_until_ns = False, math.inf


def frame(reader: Reader) -> None:
    reader.last_frame_ns, reader.frozen, reader.stall = reader.world.ns, False, ""
    reader.first_frame_ns = reader.first_frame_ns or reader.world.ns
    if reader.world.ledger.state[0] != "running":
        reader.world.ledger.set_state("running")


def freezes(reader: Reader) -> None:
    reader.frozen = True


def hangs(reader: Reader) -> None:
    reader.deaf, reader.call_until_ns = True, reader.world.ns + 5 * SECOND


def ends(error: EdgeinferError | None = None) -> Callable[[Reader], None]:
    return lambda reader: reader.end(error)


def says(text: str) -> Callable[[Reader], None]:
    return lambda reader: setattr(reader, "stall", text)


def frames(start_s: float, end_s: float) -> list[Step]:
    """Two a second."""
    return [(start_s + half / 2, frame) for half in range(int(2 * (end_s - start_s)) + 1)]


def fails(error: EdgeinferError) -> list[Step]:
    return [(0, ends(error))]


class World:
    """A capture thread, run by the test itself, whose source has these lives; it is stopped when there are no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lives: list[Step], **settings: Any) -> None:
        self.ns = 1000 * SECOND
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._lives = list(lives)
        self.readers: list[Reader] = []
        self.opened: list[float] = []
        self.hung = Hung()
        self.ledger = Books(self)
        known: dict[str, Any] = {"clock": self.clock, "random": Longest(), "hung": self.hung, "limits": LIMITS}
        unopened: Any = None  # the readers here open nothing
        job = Job("cam", unopened, self.ledger, Mailbox(), **{**known, "reconnect": True, **settings})
        self.thread = CaptureThread(job)
        monkeypatch.setattr(self.thread, "_wake", Turn(self))
        monkeypatch.setattr(self.thread, "_stopping", Turn(self))
        monkeypatch.setattr(ladder, "Reader", self.reader)

    @property
    def s(self) -> float:
        return self.ns / SECOND - 1000

    def clock(self) -> int:
        return self.ns

    def run(self) -> list[tuple[float, str, str | None]]:
        self.thread.run()
        return self.ledger.history

    def reader(self, job: Job, _: object, done: Callable[[], None]) -> Reader:
        self.opened.append(round(self.s, 1))
        if not self._lives:
            self.thread.stop()
        self.readers.append(Reader(self, job, done, self._lives.pop(0) if self._lives else []))
        return self.readers[-1]

    def schedule(self, after_s: float, act: Callable[[], None]) -> None:
        self._agenda.append((self.ns + round(after_s * SECOND), len(self._agenda), act))

    def pass_time(self, seconds: float, event: Turn) -> None:
        assert self.s < 10_000, f"it goes on for ever: {self.ledger.history[-10:]}"
        until = self.ns + round(seconds * SECOND)
        while not event.is_set() and self._agenda and min(self._agenda)[0] <= until:
            due = min(self._agenda, key=lambda item: item[:2])
            self._agenda.remove(due)
            self.ns = max(self.ns, due[0])
            due[2]()
        if not event.is_set():
            self.ns = until


def test_a_camera_that_falls_silent_stalls_is_opened_again_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(
        monkeypatch, [(0, opens), *frames(0.5, 2)], [(0.2, opens), *frames(1, 2), (2.1, ends(InputError("x")))]
    )
    assert world.run() == [
        (0.5, "running", None),
        (3.0, "stalled", "timeout"),
        (5.0, "reconnecting", "timeout"),
        (5.0, "reconnecting", "timeout"),
        (6.5, "running", None),
        (7.6, "reconnecting", "input"),
    ]
    assert world.readers[0].stopped_s == 5.0
    assert world.opened == [0, 5.5, 8.6], "the second delay is the longer"
    assert world.ledger.texts[1] == "no frame for 1.0 s"
    assert world.ledger.texts[3] == "source cam: no frame for 3.0 s"
    assert (world.ledger.snapshot().stalls, world.ledger.snapshot().reconnects) == (1, 2)
    assert world.thread.error is None


def test_a_camera_that_goes_on_by_itself_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(0.0, opens), *frames(0, 1), (2.5, says("no frame within 2 s")), *frames(3.5, 4), (4.1, ends())]
    world = World(monkeypatch, steps)
    assert world.run() == [
        (0, "running", None),
        (2.0, "stalled", "timeout"),
        (3.5, "running", None),
        (4.1, "ended", "end"),
    ]
    assert world.opened == [0]


def test_what_the_source_says_of_its_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(0, opens), (0.1, frame), (0.5, says("no frame within 2 s"))])
    world.run()
    assert world.ledger.texts[1:3] == ["no frame within 2 s", "source cam: no frame within 2 s"]


def test_the_first_frame_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(4, opens)], [(0, opens), (9.9, frame), (10, ends(InputError("x")))])
    assert world.run()[:3] == [
        (14.0, "reconnecting", "timeout"),
        (14.0, "reconnecting", "timeout"),
        (24.4, "running", None),
    ]


def test_a_picture_that_stays_the_same_is_a_stall_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps = [(0.0, opens), *frames(0, 1), (1.2, freezes)]
    world = World(monkeypatch, steps, [(0, opens), (0.1, freezes), (1, frame), (1.5, ends())], frozen_s=0.2)
    with caplog.at_level(logging.INFO):
        history = world.run()
    assert history[:4] == [
        (0, "running", None),
        (pytest.approx(1.5, abs=0.3), "stalled", "frozen"),
        (4.0, "reconnecting", "frozen"),
        (4.0, "reconnecting", "frozen"),
    ]
    assert world.ledger.texts[1] == "the same picture for 0.2 s"
    assert "running again after 1.5 s" in caplog.text


def test_a_read_that_never_returns_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(0, opens), (0.5, frame), (0.5, hangs)], [(0, opens), *frames(0, 1), (1, ends())])
    assert world.run()[1:4] == [
        (1.5, "stalled", "timeout"),
        (3.5, "reconnecting", "timeout"),
        (5.5, "reconnecting", "timeout"),
    ]
    assert world.opened == [0, 6.0]
    assert world.hung.count() == 1
    assert world.readers[0].stopped_s == 3.5, "it closes the device should it ever come back"


def test_so_is_an_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [], [(0, opens), *frames(0, 1), (1, ends())])
    assert world.run()[:1] == [(12.0, "reconnecting", "hung")]
    assert world.opened == [0, 12.5]
    assert world.hung.count() == 1


def test_an_opening_that_takes_long_is_explained_once_and_not_by_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[Step] = [(8, opens), *frames(8, 9), (9, ends())]
    world = World(monkeypatch, slow, opening_why="it looks through its plugins")
    assert world.run()[:2] == [(1.0, "starting", "opening"), (8.0, "running", None)]
    assert world.ledger.texts[0] == "it looks through its plugins"
    assert World(monkeypatch, slow).run()[:1] == [(8.0, "running", None)]


def test_a_file_may_be_silent_for_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(0, opens_file), (0, frame), (500, frame), (1000, ends())], reconnect=None)
    assert world.run() == [(0, "running", None), (1000, "ended", "end")]
    assert world.thread.live is False


@pytest.mark.parametrize(
    ("code", "delays"),
    [("network", [0.5, 1, 2, 4, 8, 16, 30, 30]), ("timeout", [0.5, 1, 2, 4, 4, 4]), ("frozen", [0.5, 1, 2, 4, 4])],
)
def test_delays_grow_and_stay_short_beside_a_peer_that_is_silent(
    monkeypatch: pytest.MonkeyPatch, code: str, delays: list[float]
) -> None:
    world = World(monkeypatch, *[fails(CameraError(code, "x"))] * len(delays))
    world.run()
    waited = [later - earlier for earlier, later in zip(world.opened, world.opened[1:], strict=False)]
    assert waited == pytest.approx(delays, abs=0.11)


def test_what_needs_a_person_is_a_failure_that_is_tried_again_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    error = CameraError("unauthorized", "401", lasting=True)
    world = World(monkeypatch, fails(error), fails(error), [(0, opens), *frames(0, 1), (1, ends())])
    assert world.run() == [
        (0, "failed", "unauthorized"),
        (30, "failed", "unauthorized"),
        (90, "running", None),
        (91, "ended", "end"),
    ]
    assert world.thread.error is None


@pytest.mark.parametrize(("frames_s", "delay_s"), [(60, 0.5), (59, 2)])
def test_a_minute_of_frames_makes_the_next_delay_the_shortest(
    monkeypatch: pytest.MonkeyPatch, frames_s: float, delay_s: float
) -> None:
    """Counted from its first frame: half a minute of opening is no minute of frames."""
    trouble = InputError("x")
    steady = [(5.0, opens), *frames(5, 5 + frames_s), (5 + frames_s, ends(trouble))]
    world = World(monkeypatch, fails(trouble), fails(trouble), steady)
    world.run()
    assert world.opened[3] - world.opened[2] == pytest.approx(5 + frames_s + delay_s, abs=0.11)


@pytest.mark.parametrize("kind", [ConfigError, UnavailableError, FatalError])
def test_what_opening_again_can_not_change_ends_it(monkeypatch: pytest.MonkeyPatch, kind: type[EdgeinferError]) -> None:
    error = kind("x")
    world = World(monkeypatch, [(0, opens), *frames(0, 1), (1, ends(error))])
    assert world.run()[-1][1] == "failed"
    assert world.thread.error is error
    assert world.opened == [0]


GONE = InputError("gone")


@pytest.mark.parametrize(
    ("settings", "steps", "again"),
    [
        ({"reconnect": None}, [(0, opens), (0, ends(GONE))], True),
        ({"reconnect": None}, [(0, ends(GONE))], False),
        ({"reconnect": None}, [(0, opens_file), (0, ends(GONE))], False),
        ({"reconnect": True}, [(0, ends(GONE))], True),
        ({"reconnect": True}, [(0, opens_file), (0, ends(GONE))], False),
        ({"reconnect": False}, [(0, opens), (0, frame), (0, ends(GONE))], False),
        ({"wait": False}, [(0, ends(GONE))], False),
        ({"wait": False}, [(0, opens), (0, ends(GONE))], False),
        ({"wait": False}, [(0, opens), (0, frame), (0, ends(GONE))], True),
    ],
)
def test_who_is_opened_again_after_an_error(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], steps: list[Step], again: bool
) -> None:
    world = World(monkeypatch, steps, **settings)
    world.run()
    assert world.opened == ([0, 0.5] if again else [0])
    assert (world.thread.error is GONE) is not again
    assert world.ledger.state[0] == ("reconnecting" if again else "failed")


def test_a_camera_that_may_not_be_opened_again_fails_when_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(0, opens), (0, frame)], reconnect=False)
    assert world.run() == [(0, "running", None), (1.0, "stalled", "timeout"), (3.0, "failed", "timeout")]
    assert isinstance(world.thread.error, CameraError)


def test_a_reason_is_told_once_a_minute_and_another_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused, away = CameraError("refused", "source cam: refused"), CameraError("network", "away")
    lives = [*[fails(refused)] * 3, fails(away), *[fails(away)] * 6]
    back = [(0.0, opens), *frames(0, 1), (1.0, ends(away))]
    world = World(monkeypatch, *lives, back)
    with caplog.at_level(logging.INFO):
        world.run()
    assert [record.getMessage() for record in caplog.records] == [
        "source cam: refused; trying again in 0.5 s",
        "source cam: away; trying again in 4.0 s",
        "source cam: away; trying again in 30.0 s",
        f"source cam: running again after {world.opened[10]:.1f} s",
        "source cam: away; trying again in 30.0 s",
    ]


def test_a_reason_that_comes_back_is_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = CameraError("network", "away")
    world = World(monkeypatch, fails(away), [(0, opens), *frames(0, 1), (1, ends(away))], fails(away))
    with caplog.at_level(logging.INFO):
        world.run()
    assert [record.getMessage() for record in caplog.records] == [
        "source cam: away; trying again in 0.5 s",
        "source cam: running again after 0.5 s",
        "source cam: away; trying again in 1.0 s",
    ]


def test_a_frozen_picture_is_no_good_news(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    steps = [(0.0, opens), (0.1, frame), (0.1, freezes), (0.9, ends(GONE))]
    with caplog.at_level(logging.INFO):
        World(monkeypatch, fails(GONE), steps, frozen_s=1.0).run()
    assert "running again" not in caplog.text


@pytest.mark.parametrize("last_s", [0.2, 0.71, 0.93])
def test_a_stall_is_noticed_when_it_happens(monkeypatch: pytest.MonkeyPatch, last_s: float) -> None:
    world = World(monkeypatch, [(0, opens), (last_s, frame)])
    world.run()
    at = [when for when, state, _ in world.ledger.history if state in ("stalled", "reconnecting")]
    assert at[:2] == pytest.approx([last_s + 1, last_s + 3], abs=0.08)


@pytest.mark.parametrize(
    ("steps", "at_s", "state"),
    [
        ([], 1, ("ended", "stopped")),
        ([(0, opens), (0, frame)], 0.7, ("ended", "stopped")),
        ([(0, opens), (0, frame)], 2, ("ended", "stopped")),
        ([(0, ends(GONE))], 0.2, ("reconnecting", "input")),
        ([(0, ends(CameraError("codec", "x", lasting=True)))], 9, ("failed", "codec")),
    ],
    ids=["starting", "running", "stalled", "away", "failed"],
)
def test_stopping_ends_it_on_every_rung_at_once(
    monkeypatch: pytest.MonkeyPatch, steps: list[Step], at_s: float, state: tuple[str, str]
) -> None:
    world = World(monkeypatch, steps)
    world.schedule(at_s, world.thread.stop)
    world.run()
    reason = world.ledger.state[1]
    assert (world.ledger.state[0], reason and reason.code) == state
    assert world.s == pytest.approx(at_s, abs=0.1)
    assert world.thread.error is None
    assert world.opened == [0]


def test_one_that_is_stopped_in_a_call_that_never_returns_ends_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(0, opens), (0, frame), (0, hangs)])
    world.schedule(0.5, world.thread.stop)
    world.run()
    assert world.s == pytest.approx(5, abs=0.1)
    assert world.hung.count() == 1


def test_unreadable_pictures_of_a_file_are_its_failure_at_the_end_and_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stop_s in (None, 0.5):
        world = World(monkeypatch, [(0, opens_file), (0.1, frame), (1, ends())], reconnect=None)
        world.thread._intake.skip("a.png: empty file")
        if stop_s is not None:
            world.schedule(stop_s, world.thread.stop)
        world.run()
        assert str(world.thread.error) == "a.png: empty file"
        assert world.ledger.state[0] == "failed"


def test_settings_that_change_while_it_runs_hold_after_it_was_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, fails(GONE), fails(GONE))
    world.schedule(0.2, lambda: world.thread.adjust(7.0, 9))
    world.run()
    assert [(reader.job.max_fps, reader.job.limit) for reader in world.readers[:2]] == [(None, None), (7.0, 9)]
    assert world.thread._intake._job.max_fps == 7.0


def test_its_frames_may_be_dropped_until_it_is_known_to_be_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [(1, opens_file), (2, ends())], reconnect=None)
    seen = []
    for at in (0.5, 1.5):
        world.schedule(at, lambda: seen.append(world.thread.live))
    assert world.thread.live
    world.run()
    assert seen == [True, False]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CameraError("busy", "x"), "busy"),
        (StalledError("x"), "timeout"),
        (InputError("x"), "input"),
        (TemporaryError("x"), "error"),
        (ConfigError("x"), "error"),
    ],
)
def test_every_error_has_a_code(error: EdgeinferError, code: str) -> None:
    assert ladder.reason_code(error) == code
