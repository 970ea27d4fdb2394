"""The ladder of a source: quiet, lost, hung, frozen, back again; and what never happens to the books on the way."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeinfer.errors import CameraError, ConfigError, FatalError, InputError, StalledError, UnavailableError
from edgeinfer.flow.capture import CaptureThread, Deadlines, Hung
from edgeinfer.flow.capture.reader import Reader
from edgeinfer.guard.limits import MAX_HUNG
from edgeinfer.messages import Reason
from edgeinfer.types import Capture
from tests.capturing import Desk, Openings, Script, capturing, picture

PATIENT = Deadlines(stall=10, timeout=30)
"""For sources that must not stall, on a machine that is busy."""


@pytest.fixture
def desk() -> Desk:
    return Desk()


class Gate:
    """A call that comes back when the test says so, as a driver's may or may not."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        self.opened.wait(60)


def quiet(seconds: float) -> Any:
    """A read that keeps its deadline: nothing came."""

    def step() -> None:
        time.sleep(min(seconds, 0.1))
        raise StalledError("cam0: no frame within 0.1 s")

    return step


@pytest.mark.slow
def test_a_quiet_source_stalls_and_goes_on(desk: Desk) -> None:
    source = Script(1, 2, *[quiet(0.1)] * 8)
    with capturing(desk, lambda: source, Deadlines(stall=0.3, timeout=30)) as thread:
        desk.until(desk.state_is("stalled"), "stalled")
        desk.until(desk.state_is("running"), "running again")
        assert desk.books.stalls == [state for state, _ in desk.states].count("stalled")
        assert desk.books.reconnects == 0, "it only paused"
        assert thread.error is None
    assert source.closed.is_set()


@pytest.mark.slow
def test_a_source_that_stays_quiet_is_opened_again_and_its_numbers_go_on(desk: Desk) -> None:
    first = Script(1, 2, 3, *[quiet(0.1)] * 1000)
    openings = Openings(first, Script())
    with capturing(desk, openings):
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        assert desk.code("reconnecting") == "timeout"
        desk.until(desk.got(3), "frames of the second opening")
    states = [state for state, _ in desk.states if state != "stalled"]  # on a busy machine that may come earlier too
    shortened = [state for state, _ in itertools.groupby(states)]
    assert shortened[:4] == ["starting", "running", "reconnecting", "running"]
    assert desk.books.stalls == [state for state, _ in desk.states].count("stalled")
    assert first.closed.is_set(), "a device that stays open can't be opened again"
    ids = [frame.frame_id for frame in desk.frames]
    assert ids == sorted(set(ids))
    assert desk.books.reconnects == openings.count - 1
    assert max(ids) < desk.books.captured


@pytest.mark.slow
@pytest.mark.parametrize("code", ["gone", "closed", "network"])
def test_a_source_that_fails_comes_back(desk: Desk, code: str) -> None:
    trouble = CameraError(code, "cam0: the camera is gone")
    openings = Openings(Script(1, trouble), trouble, trouble, Script())
    with capturing(desk, openings, reconnect=True) as thread:
        desk.until(lambda: ("reconnecting", code) in desk.states, "reconnecting")
        desk.until(lambda: desk.state_is("running")() and openings.count >= 4, "running again")
        assert thread.is_alive()
        assert desk.books.reconnects >= 3


@pytest.mark.slow
@pytest.mark.parametrize("code", ["unauthorized", "not_found", "codec"])
def test_what_lasts_is_a_failure_with_its_code_and_is_tried_again_rarely(
    desk: Desk, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = Openings(CameraError(code, "401", lasting=True), Script())
    with capturing(desk, openings, reconnect=True) as thread:
        desk.until(desk.state_is("failed"), "failed")
        assert desk.code("failed") == code
        assert thread.is_alive(), "a password may be put right without a restart"
        time.sleep(0.3)
        assert openings.count == 1, "a camera locks an account after a few wrong passwords"


@pytest.mark.slow
def test_what_lasts_is_tried_again_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeinfer.flow.capture.backoff.LASTING_BASE_S", 0.2)
    openings = Openings(CameraError("unauthorized", "401", lasting=True), Script())
    with capturing(desk, openings, reconnect=True):
        desk.until(desk.got(2), "frames after the password was put right")


@pytest.mark.parametrize("error", [ConfigError("max_fps"), UnavailableError("no gi"), FatalError("x")])
def test_what_opening_again_can_not_change_ends_the_source(desk: Desk, error: Exception) -> None:
    openings = Openings(error)
    with capturing(desk, openings, reconnect=True) as thread:
        thread.join(10)
        assert thread.error is error
    assert openings.count == 1
    assert desk.ledger.state[0] == "failed"


def test_a_source_that_was_never_there_is_waited_for_or_not(desk: Desk) -> None:
    with capturing(desk, Openings(InputError("no such camera"), Script()), reconnect=True):
        desk.until(desk.got(1), "a frame")
    impatient = Desk()
    with capturing(impatient, Openings(InputError("no such camera"), Script()), reconnect=True, wait=False) as thread:
        thread.join(10)
        assert str(thread.error) == "no such camera"
    assert impatient.ledger.state[0] == "failed"


def test_one_that_was_there_is_waited_for_in_any_case(desk: Desk) -> None:
    with capturing(desk, Openings(Script(1, InputError("gone")), Script()), reconnect=True, wait=False):
        desk.until(desk.got(3), "frames of the second opening")


@pytest.mark.parametrize("settings", [{"reconnect": False}, {}])
def test_a_file_is_not_read_again_after_an_error(desk: Desk, settings: dict[str, Any]) -> None:
    openings = Openings(Script(1, InputError("truncated"), live=False))
    with capturing(desk, openings, **settings) as thread:
        desk.until(lambda: not thread.is_alive(), "the end")
        assert str(thread.error) == "truncated"
    assert openings.count == 1


@pytest.mark.slow
def test_a_file_may_be_as_slow_as_it_likes(desk: Desk) -> None:
    with capturing(desk, lambda: Script(1, lambda: time.sleep(1.5), live=False)) as thread:
        desk.until(desk.got(3), "frames after the long one")
        assert thread.is_alive()
    assert desk.books.reconnects == 0
    assert desk.books.stalls == 0


@pytest.mark.slow
@pytest.mark.parametrize("where", ["open", "read", "close"])
def test_a_call_that_never_returns_is_left_behind(desk: Desk, where: str) -> None:
    gate, hung = Gate(), Hung()
    first = Script(1, gate) if where == "read" else Script(1, InputError("gone"))
    if where == "close":
        first.close = gate  # type: ignore[method-assign]

    def hanging() -> Script:
        if where == "open":
            gate()
        return first

    openings = Openings(hanging, Script)
    with capturing(desk, openings, reconnect=True, hung=hung):
        desk.until(lambda: hung.count() == 1, "giving up on the thread")
        desk.until(desk.got(3), "frames of the thread that took over")
        gate.opened.set()
        desk.until(lambda: hung.count() == 0, "the end of the thread that was left behind")
        desk.until(desk.got(3), "frames, as if nothing had been")
        assert openings.count == 2
        if where != "close":
            assert first.closed.is_set(), "the device stays taken"


@pytest.mark.slow
def test_a_late_frame_of_a_thread_left_behind_is_never_booked(desk: Desk) -> None:
    gate, hung = Gate(), Hung()
    blocked = Gate()
    with capturing(desk, Openings(lambda: Script(1, gate, 77), lambda: Script(blocked)), hung=hung):
        desk.until(lambda: hung.count() == 1, "giving up on the thread")
        desk.until(blocked.entered.is_set, "the second opening")
        before = desk.books
        gate.opened.set()
        desk.until(lambda: hung.count() == 0, "the end of the thread that was left behind")
        time.sleep(0.1)
        desk.work()
        assert desk.books.captured == before.captured == 1
        assert len(desk.frames) == 1
        blocked.opened.set()


@pytest.mark.slow
def test_a_source_whose_threads_hang_is_not_opened_again(desk: Desk) -> None:
    gate, hung = Gate(), Hung()
    openings = Openings(lambda: Script(1, gate))
    with capturing(desk, openings, hung=hung) as thread:
        desk.until(lambda: thread.stuck, "as many threads as it may lose")
        assert desk.code("failed") == "stuck"
        assert openings.count == hung.count() == MAX_HUNG
        gate.opened.set()
        desk.until(desk.got(3), "frames, once the driver lets go")
        assert not thread.stuck


@pytest.mark.slow
def test_the_same_picture_again_and_again_is_no_picture(desk: Desk) -> None:
    openings = Openings(lambda: Script(*[7] * 10_000), Script)
    with capturing(desk, openings, frozen_s=0.3):
        desk.until(desk.state_is("stalled"), "stalled")
        assert desk.code("stalled") == "frozen"
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        desk.until(desk.state_is("running"), "running again")
    assert desk.books.dropped["frozen"] > 0


@pytest.mark.slow
def test_a_still_scene_is_allowed_to_be_one(desk: Desk) -> None:
    with capturing(desk, lambda: Script(*[7] * 10_000), PATIENT):
        desk.until(desk.got(150), "frames")
    assert desk.books.stalls == 0
    assert "frozen" not in desk.books.dropped


@pytest.mark.slow
def test_a_picture_that_moves_again_ends_the_stall(desk: Desk) -> None:
    with capturing(desk, lambda: Script(*[7] * 150), Deadlines(stall=0.3, timeout=30), frozen_s=0.3):
        desk.until(desk.state_is("stalled"), "stalled")
        desk.until(desk.state_is("running"), "running again")
    assert desk.books.reconnects == 0


@pytest.mark.slow
def test_one_source_in_trouble_does_not_disturb_another(desk: Desk) -> None:
    gate, other = Gate(), Desk()
    with capturing(desk, lambda: Script(1, gate)), capturing(other, Script, PATIENT):
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            desk.work()
            other.work()
        gate.opened.set()
    assert desk.books.stalls > 0
    assert (other.books.stalls, other.books.reconnects) == (0, 0)
    assert len(other.frames) > 50


BAD = {
    "grey": np.zeros((4, 4), np.uint8),
    "alpha": np.zeros((4, 4, 4), np.uint8),
    "float": np.zeros((4, 4, 3), np.float32),
    "signed": np.zeros((4, 4, 3), np.int8),
    "no rows": np.zeros((0, 4, 3), np.uint8),
    "no columns": np.zeros((4, 0, 3), np.uint8),
    "turned": np.zeros((3, 4, 4), np.uint8).transpose(1, 2, 0),
    "cut out": np.zeros((4, 8, 3), np.uint8)[:, :4],
    "batch": np.zeros((1, 4, 4, 3), np.uint8),
    "list": [[[0, 0, 0]]],
    "none": None,
}
"""What a plugin may take for an image, and everything behind the mailbox would fall over."""


@pytest.mark.parametrize("bad", BAD)
def test_a_picture_that_breaks_the_contract_ends_its_source_and_no_other(desk: Desk, bad: str) -> None:
    other = Desk(mailbox=desk.mailbox)
    openings = Openings(lambda: Script(1, Capture(BAD[bad], 0, 0)))
    with capturing(desk, openings, reconnect=True) as thread:
        desk.until(lambda: not thread.is_alive(), "the end of the source")
    assert isinstance(thread.error, ConfigError), "opening it again gives the same"
    assert str(thread.error).startswith("source cam: what it gave breaks the contract of a source: its image is ")
    assert "\n" not in str(thread.error)
    assert openings.count == 1
    assert desk.ledger.state[0] == "failed"
    assert (desk.books.captured, len(desk.frames)) == (1, 1), "what came before it was sound"
    with capturing(other, Script, PATIENT):
        other.until(other.got(3), "frames of another source")


def stamped(**times: Any) -> Capture:
    return replace(picture(), **times)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((4, 4, 3), np.uint8), "a ndarray is no Capture"),
        ((True, np.zeros((4, 4, 3), np.uint8)), "a tuple is no Capture"),
        (stamped(t_mono_ns=1.5), "times"),
        (stamped(t_ns=None), "times"),
        (stamped(t_media_ns=0.5), "place in the medium"),
    ],
    ids=["image", "tuple", "float", "none", "media"],
)
def test_so_does_what_is_no_capture_or_has_no_time(desk: Desk, given: Any, says: str) -> None:
    with capturing(desk, lambda: Script(given), reconnect=True) as thread:
        desk.until(lambda: not thread.is_alive(), "the end of the source")
    assert isinstance(thread.error, ConfigError)
    assert says in str(thread.error)
    assert desk.books.captured == 0


def test_a_picture_of_one_pixel_is_one(desk: Desk) -> None:
    with capturing(desk, lambda: Script(Capture(np.zeros((1, 1, 3), np.uint8), 0, 0)), max_age_ns=None):
        desk.until(desk.got(2), "frames")


def test_without_threads_to_spare_a_camera_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    start, failures = Reader.start, [RuntimeError("can't start new thread")] * 2

    def short_of_threads(reader: Reader) -> None:
        if failures:
            raise failures.pop()
        start(reader)

    monkeypatch.setattr(Reader, "start", short_of_threads)
    with capturing(desk, Script, reconnect=True):
        desk.until(desk.got(2), "frames")
        assert desk.code("reconnecting") == "error"


@pytest.mark.parametrize("live", [True, False])
def test_a_source_ends_with_the_results_that_it_was_asked_for(desk: Desk, live: bool) -> None:
    source = Script(live=live)
    with capturing(desk, lambda: source, limit=5) as thread:
        desk.until(lambda: not thread.is_alive(), "the end")
        assert thread.live is live
    assert desk.ledger.state == ("ended", Reason("end", "the source is at its end"))
    assert desk.books.inferred >= 5
    assert live or desk.books.captured == 5
    assert source.closed.is_set()
    assert thread.error is None


def test_a_bug_in_the_ladder_itself_is_a_failure_of_the_source_and_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CaptureThread, "_pause_s", lambda *_: 1 / 0)
    source = Script()
    with capturing(desk, lambda: source) as thread:
        desk.until(lambda: not thread.is_alive(), "the end")
    assert desk.ledger.state[0] == "failed"
    assert "ZeroDivisionError" in str(thread.error)
    assert "ZeroDivisionError" in caplog.text
    desk.until(source.closed.is_set, "closing the device")


def test_stopping_ends_every_step_of_the_ladder(desk: Desk) -> None:
    with capturing(desk, Openings(CameraError("unauthorized", "401", lasting=True)), reconnect=True) as thread:
        desk.until(desk.state_is("failed"), "failed")
        started = time.monotonic()
        thread.stop()
        thread.join(10)
        assert time.monotonic() - started < 5, "it slept its half minute out"
    assert desk.ledger.state[0] == "failed", "how it was is worth more than that it was stopped"
    assert thread.error is None


def test_stopping_and_starting_at_any_time(desk: Desk) -> None:
    for _ in range(20):
        with capturing(desk, Script):
            time.sleep(0.002)
    ids = [frame.frame_id for frame in desk.frames]
    assert ids == sorted(set(ids))


@pytest.mark.slow
def test_a_failure_that_repeats_is_told_of_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    openings = Openings(*[InputError("cam0: no such camera")] * 5, Script())
    with caplog.at_level(logging.INFO), capturing(desk, openings, reconnect=True):
        desk.until(desk.got(3), "frames")
        desk.until(lambda: "running again" in caplog.text, "the good news")
    assert caplog.text.count("no such camera") == 1


def test_no_error_of_a_plugin_shows_a_password(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        capturing(desk, Openings(ValueError("rtsp://u:hunter2@cam/x: bad"), Script()), reconnect=True),
    ):
        desk.until(desk.got(1), "a frame")
    assert "rtsp://***@cam/x" in caplog.text
    assert "hunter2" not in caplog.text + str(desk.ledger.state)


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [3600, -3600])
def test_setting_the_wall_clock_changes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch, step_s: int) -> None:
    wall = time.time_ns
    with capturing(desk, Script, PATIENT):
        desk.until(desk.got(5), "frames")
        monkeypatch.setattr(time, "time_ns", lambda: wall() + step_s * 1_000_000_000)
        monkeypatch.setattr(time, "time", lambda: wall() / 1e9 + step_s)
        desk.until(desk.got(50), "frames")
    books = desk.books
    assert (books.stalls, books.reconnects, books.dropped.get("stale", 0)) == (0, 0, 0)
    assert abs(desk.frames[-1].capture.t_ns - desk.frames[0].capture.t_ns) > 3500e9, "the step was not seen at all"
