"""The publisher's parts: sinks that fail alone, statuses when there is something to say, messages that say it."""

from __future__ import annotations

import ast
import gc
import importlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import edgeinfer
from edgeinfer import frames
from edgeinfer.commands._journal import Changes
from edgeinfer.commands._report import SceneLines
from edgeinfer.daemon.failures import failures, reader_gone
from edgeinfer.errors import EdgeinferError, InputError, OutOfMemoryError, StalledError
from edgeinfer.flow import statuses
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.compose import Identity, detection_list, detections_message, info_message
from edgeinfer.flow.outbox import DEPTH, SLOW, in_host_memory
from edgeinfer.flow.publisher import QUEUE_DEPTH, Publisher
from edgeinfer.flow.sinkset import SinkSet
from edgeinfer.flow.statistics import Statistics
from edgeinfer.flow.statuses import Statuses
from edgeinfer.frames import FramePool, Store, pool
from edgeinfer.guard.limits import OUTBOX_MESSAGES, OUTBOX_PICTURES
from edgeinfer.messages import DAEMON, MachineVitals, Message, ModelInfo, Reason, SinkVitals, StatusMessage
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.sinks.jsonl import JsonLines
from edgeinfer.sinks.video import AnnotatedVideo
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SinkSnapshot
from edgeinfer.types import Capture, Colour, Detections, Frame, Image, Result, Timing
from tests.test_messages import example
from tests.test_reload import WAIT_S, Recorder

INFO = ModelInfo(id="m@1", name="m", sha256="0", task="detection", input_size=(4, 4), labels=["cat", "dog"])


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def result(source: str = "a", live: bool = True, seq: int = 0, **capture: Any) -> Result:
    now = time.monotonic_ns()
    taken = Capture(np.zeros((6, 8, 3), np.uint8), **{"t_ns": 1, "t_mono_ns": now, **capture})
    timing = Timing(1.0, 2.0, 3.0, 4.0, receive=0.5, wait=0.25)
    return Result(Frame(source, 7, taken, live), seq, Detections.empty(), timing, 5, "cpu", INFO)


class Broken(Recorder):
    """Fails at every write, and at its end too."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.closed, self._error = 0, error or OSError(28, "No space left on device")

    def write(self, message: Message, result: Result | None) -> None:
        raise self._error

    def close(self) -> None:
        self.closed += 1
        raise OSError(5, "worse")


class Remembering(Recorder):
    """Is told of sources that have gone, and can be connected to."""

    endpoint, subscribers = "ipc://x", 3

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []
        self.closed = 0

    def forget(self, source: str) -> None:
        self.forgotten.append(source)

    def close(self) -> None:
        self.closed += 1


def nothing() -> None:
    pass


# --- sinks ---


def test_a_sink_that_fails_is_closed_named_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    broken, good = Broken(), Remembering()
    sinks = SinkSet({"bad": broken, "publish": good}, nothing)
    for number in range(3):
        sinks.write(example("status", number), None)
    assert len(good.messages) == 3
    assert broken.closed == 1
    assert str(sinks.failed["bad"]).endswith("No space left on device")
    assert sinks.bound
    assert caplog.text.count("No space left on device; no more is written to it") == 1
    (told,) = failures({}, sinks).values()
    assert "bad: No space left on device" in str(told)
    sinks.close()
    assert good.closed == 1


def test_a_plugins_error_is_told_in_one_line() -> None:
    sinks = SinkSet({"x": Broken(ValueError("one\ntwo\x1b[2J"))}, nothing)
    sinks.write(example("status"), None)
    assert sinks.troubles == {"x": "ValueError: one two�[2J"}


def test_the_daemons_own_socket_that_fails_is_not_bound_any_more() -> None:
    sinks = SinkSet({"publish": Broken()}, nothing)
    assert sinks.bound
    sinks.write(example("status"), None)
    assert not sinks.bound
    assert sinks.subscribers is None


def test_who_listens_and_who_forgets() -> None:
    sink, plain = Remembering(), Recorder()
    sinks = SinkSet({"publish": sink, "other": plain}, nothing)
    assert sinks.subscribers == 3
    sinks.forget("front")
    assert sink.forgotten == ["front"]
    assert SinkSet({"other": sink}, nothing).subscribers is None, "only the daemon's own socket counts"


def test_a_reader_of_standard_output_that_leaves_ends_the_run_and_is_no_failure() -> None:
    for name, gone in (("console", True), ("sinks.jsonl", True), ("sinks.video", False)):
        sinks = SinkSet({name: Broken(BrokenPipeError(32, "Broken pipe"))}, nothing)
        sinks.write(example("status"), None)
        assert reader_gone(sinks) is gone
        assert bool(failures({}, sinks)) is not gone
    sinks = SinkSet({"console": Broken()}, nothing)
    sinks.write(example("status"), None)
    assert not reader_gone(sinks), "a full disk is none"


def test_sources_that_failed_are_named_in_the_end() -> None:
    found = failures({"front": InputError("gone")}, SinkSet({}, nothing))
    assert [(name, str(error)) for name, error in found.items()] == [("source front", "gone")]


class Slow(Recorder):
    """Blocks until it may go on."""

    blocks = True
    pictures = False

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, message: Message, result: Result | None) -> None:
        self.go.wait(WAIT_S)
        super().write(message, result)


def test_what_only_waited_at_the_end_blames_nobody() -> None:
    slow = Slow()
    sinks = SinkSet({"slow": slow}, nothing)
    for number in range(2):
        sinks.write(example("detections", number), result())
    assert "slow: 2 messages were not written before the end" in str(failures({}, sinks)["slow"])
    slow.go.set()
    sinks.close()
    assert failures({}, sinks) == {}


def test_messages_that_a_slow_sink_has_not_taken_are_counted_and_told() -> None:
    slow = Slow()
    sinks = SinkSet({"slow": slow}, nothing)
    for number in range(DEPTH + 11):
        sinks.write(example("detections", number), result())
    assert sinks.unwritten == {"slow": (DEPTH + 11, SLOW)}
    assert sinks.troubles == {"slow": SLOW}
    assert "slow: " in str(failures({}, sinks)["slow"])
    slow.go.set()
    sinks.close()
    lost = DEPTH + 11 - len(slow.messages)
    assert lost in (10, 11), "one may be in the sink's hands already"
    assert sinks.unwritten == {"slow": (lost, SLOW)}


@pytest.mark.parametrize(
    ("pictures", "most"), [(True, OUTBOX_PICTURES), (False, OUTBOX_MESSAGES), (None, OUTBOX_PICTURES)]
)
def test_few_pictures_wait_for_a_sink_that_looks_at_them(pictures: bool | None, most: int) -> None:
    class Looking(Recorder):
        blocks = True
        go = threading.Event()
        results: ClassVar[list[Result | None]] = []

        def write(self, message: Message, result: Result | None) -> None:
            self.go.wait(WAIT_S)
            self.results.append(result)

    if pictures is not None:
        Looking.pictures = pictures  # type: ignore[attr-defined] # (some have none)
    sinks = SinkSet({"looking": Looking()}, nothing)
    for number in range(OUTBOX_MESSAGES + 10):
        sinks.write(example("detections", number), result())
    Looking.go.set()
    sinks.close()
    assert most <= len(Looking.results) <= most + 1, "one may be in the sink's hands already"
    assert all((given is None) == (pictures is False) for given in Looking.results)


class OnDevice(HostSurface):
    """Says that it lies in a GPU's memory."""

    on_device = True


@pytest.mark.slow
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("pictures", [True, False])
def test_what_waits_for_a_sink_takes_no_place_on_the_device(pictures: bool, live: bool) -> None:
    class Looking(Recorder):
        blocks = True

        def __init__(self) -> None:
            super().__init__()
            self.pictures = pictures
            self.results: list[Result | None] = []

        def write(self, message: Message, result: Result | None) -> None:
            self.results.append(result)

    sink, shape = Looking(), Shape("nv12", 4, 2)
    sinks = SinkSet({"looking": sink}, nothing)
    surface = OnDevice(pool.bytes(shape.size), shape, Colour())
    kept, given = weakref.ref(surface), result(live=live)
    given = replace(given, frame=replace(given.frame, capture=replace(given.frame.capture, picture=surface)))
    sinks.write(example("detections", 0), given)
    image = given.frame.image
    del given, surface
    gc.collect()
    sinks.close()
    assert kept() is None, "nothing holds the surface"
    if pictures:
        assert sink.results[0] is not None
        assert sink.results[0].frame.capture.picture is image, "converted once, for all who look at it"


class Full(OnDevice):
    """One whose picture finds no room."""

    def __init__(self, trouble: Exception | None) -> None:
        shape = Shape("nv12", 4, 2)
        super().__init__(pool.bytes(shape.size), shape, Colour())
        self._trouble, self._own = trouble, FramePool(Store(limit=100))
        self._held = self._own.bytes(100)

    def image(self) -> Image:
        if self._trouble is not None:
            raise self._trouble
        return self._own.empty(2, 4)


@pytest.mark.parametrize("trouble", [None, OutOfMemoryError("no room on the device"), InputError("too large")])
def test_a_picture_without_room_stays_on_the_device_and_nobody_waits_for_it(
    trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("the publisher waits")

    monkeypatch.setattr(frames, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    given, surface = result(), Full(trouble)
    given = replace(given, frame=replace(given.frame, capture=replace(given.frame.capture, picture=surface)))
    assert in_host_memory(given).frame.capture.picture is surface


def test_the_publisher_beats_with_every_result() -> None:
    events = list[str]()

    class Noting(Recorder):
        def write(self, message: Message, result: Result | None) -> None:
            if result is not None:
                events.append("result")

    publisher = publisher_of({"noting": Noting()})
    publisher.heart.beat = lambda *_: events.append("beat")  # type: ignore[method-assign]
    for _ in range(5):
        publisher.put(result())
    publisher.close()
    publisher.start()
    publisher.join(WAIT_S)
    assert events.count("result") == 5
    assert all(events[at - 1] == "beat" for at, event in enumerate(events) if event == "result")


@pytest.mark.parametrize("error", [StalledError, OutOfMemoryError])
def test_a_sink_that_gets_no_memory_for_a_picture_loses_that_one(error: type[EdgeinferError]) -> None:
    class Looking(Recorder):
        blocks = True
        seen: ClassVar[list[Message]]

        def write(self, message: Message, result: Result | None) -> None:
            if message == example("detections", 3):
                raise error("no room for a picture")
            self.seen.append(message)

    Looking.seen = []
    sinks = SinkSet({"looking": Looking()}, nothing)
    for number in range(6):
        sinks.write(example("detections", number), result(live=False))
    sinks.close()
    assert len(Looking.seen) == 5
    assert sinks.unwritten == {"looking": (1, "no room for a picture")}


def test_a_file_result_waits_for_a_slow_sink_and_beats_meanwhile() -> None:
    slow, beats = Slow(), threading.Event()
    sinks = SinkSet({"slow": slow}, beats.set)
    waited = threading.Event()

    def fill() -> None:
        for number in range(DEPTH + 10):
            sinks.write(example("detections", number), result(live=False))
        waited.set()

    writer = threading.Thread(target=fill, daemon=True)
    writer.start()
    assert beats.wait(WAIT_S)
    assert not waited.is_set()
    slow.go.set()
    writer.join(WAIT_S)
    sinks.close()
    assert len(slow.messages) == DEPTH + 10
    assert sinks.unwritten == {}


def test_the_others_are_served_while_a_files_result_waits_for_a_slow_sink() -> None:
    slow, served = Slow(), threading.Event()

    class Serving(Recorder):
        def service(self) -> None:
            served.set()

    sinks = SinkSet({"publish": Serving(), "slow": slow}, nothing)

    def fill() -> None:
        for number in range(DEPTH + 10):
            sinks.write(example("detections", number), result(live=False))

    threading.Thread(target=fill, daemon=True).start()
    assert served.wait(WAIT_S)
    slow.go.set()


def sinks_that_block() -> Iterator[type]:
    """edgeinfer's own, wherever they are."""
    for path in Path(edgeinfer.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "blocks = True" in map(ast.unparse, node.body):
                name = ".".join(path.relative_to(Path(edgeinfer.__file__).parents[1]).with_suffix("").parts)
                yield getattr(importlib.import_module(name), node.name)


@pytest.mark.slow
def test_of_our_own_sinks_that_may_block_video_alone_keeps_pictures_waiting() -> None:
    found = set(sinks_that_block())
    assert found >= {SceneLines, Changes, JsonLines, AnnotatedVideo}
    assert {sink for sink in found if getattr(sink, "pictures", True)} == {AnnotatedVideo}


class Lossy(Recorder):
    """Loses what it is given while `trouble` says so, and goes on by itself."""

    blocks = True
    pictures = False

    def __init__(self) -> None:
        super().__init__()
        self.trouble = self.reason = "No space left on device"
        self.lost = 0

    def write(self, message: Message, result: Result | None) -> None:
        self.lost += bool(self.trouble)
        super().write(message, result)


def test_a_sink_that_loses_is_named_while_it_does_and_counted_for_ever() -> None:
    lossy = Lossy()
    sinks = SinkSet({"sinks.x": lossy, "publish": Remembering()}, nothing)
    for number in range(3):
        sinks.write(example("status", number), None)
    until(lambda: lossy.lost == 3, "three losses")
    assert sinks.troubles == {"sinks.x": "No space left on device"}
    assert sinks.snapshots == {"sinks.x": SinkSnapshot("No space left on device", 3), "publish": SinkSnapshot()}
    lossy.trouble = ""
    sinks.write(example("status"), None)
    sinks.close()
    assert sinks.troubles == {}
    assert sinks.snapshots["sinks.x"] == SinkSnapshot("", 3)
    (told,) = failures({}, sinks).values()
    assert "sinks.x: 3 messages were not written: No space left on device" in str(told)
    assert told.exit_code == 75


def test_the_status_tells_of_a_sink_that_loses_as_long_as_it_does() -> None:
    recorder, lossy = Recorder(), Lossy()
    publisher = publisher_of({"r": recorder, "sinks.x": lossy})
    publisher.start()
    until(lambda: recorder.codes() == {"sink-failed"}, "the news")
    lossy.trouble = ""
    until(lambda: recorder.statuses(DAEMON)[-1].reason is None, "the good news")
    publisher.close()
    publisher.join(WAIT_S)


class BadEnd(Remembering):
    """Can be written to, and not closed."""

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_sink_that_fails_at_its_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    sinks = SinkSet({"late": BadEnd(), "replaced": BadEnd()}, nothing)
    sinks.change(["replaced"], {})
    assert caplog.messages == ["replaced: No space left on device"]
    sinks.close()
    assert list(failures({}, sinks)) == ["late"]


def test_the_end_waits_for_what_a_removed_sink_has_still_to_write() -> None:
    slow = Slow()
    sinks = SinkSet({"s": slow}, nothing)
    sinks.write(example("status", 0), None)
    sinks.change(["s"], {})
    threading.Timer(0.1, slow.go.set).start()
    sinks.close()
    assert len(slow.messages) == 1


def test_changed_sinks_take_over_in_order_and_failed_ones_are_forgiven() -> None:
    first, second = Remembering(), Remembering()
    sinks = SinkSet({"a": first, "bad": Broken()}, nothing)
    sinks.write(example("status", 0), None)
    sinks.change(["a", "bad"], {"a": second})
    sinks.write(example("status", 1), None)
    assert (len(first.messages), len(second.messages)) == (1, 1)
    assert first.closed == 1
    assert sinks.failed == {}
    sinks.close()
    assert (first.closed, second.closed) == (1, 1)


def test_a_slow_sink_that_is_replaced_finishes_before_its_successor_begins() -> None:
    old, new = Slow(), Slow()
    sinks = SinkSet({"s": old}, nothing)
    sinks.write(example("status", 0), None)
    sinks.change(["s"], {"s": new})
    new.go.set()
    sinks.write(example("status", 1), None)
    time.sleep(0.05)
    assert not new.messages
    old.go.set()
    sinks.close()
    assert (len(old.messages), len(new.messages)) == (1, 1)


# --- statuses ---


class Desk:
    """Statuses of two sources, a second at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("edgeinfer.flow.statuses.time.monotonic", lambda: self.now)
        self.ledgers = {name: Ledger(time.monotonic_ns) for name in ("a", "b")}
        self.bulletin = Bulletin()
        self.picture = DaemonSnapshot(model="m@1", backend="cpu")
        self.statuses = Statuses("s", self.ledgers, self.bulletin, lambda: self.picture)

    def told(self, final: bool = False) -> list[str]:
        self.last = self.statuses.due(final)
        return [message.source for message in self.last]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_everything_is_told_once_a_second(desk: Desk) -> None:
    assert desk.told() == ["a", "b", DAEMON]
    assert desk.told() == []
    desk.now += statuses.PERIOD_S * 0.99
    assert desk.told() == []
    desk.now += statuses.PERIOD_S * 0.01
    assert desk.told() == ["a", "b", DAEMON]


def test_a_change_is_told_at_once_and_once(desk: Desk) -> None:
    desk.told()
    desk.ledgers["b"].set_state("stalled", Reason("timeout", "x"))
    assert desk.told() == ["b"]
    assert desk.told() == []
    desk.bulletin.news = Reason("reloaded", "x")
    assert desk.told() == [DAEMON]
    assert desk.last[0].reason == Reason("reloaded", "x")
    desk.bulletin.note("clock_step_s", 2.0)
    assert desk.told() == [DAEMON]
    assert desk.last[0].clock_step_s == 2.0
    assert desk.told() == []


def test_a_flash_is_told_in_one_status(desk: Desk) -> None:
    desk.told()
    desk.bulletin.news = Reason("reloaded", "x")
    desk.told()
    desk.bulletin.flash(Reason("out-of-memory", "y"))
    desk.bulletin.flash(Reason("out-of-memory", "z"))
    assert desk.told() == [DAEMON, DAEMON]
    assert [message.reason and message.reason.text for message in desk.last] == ["y", "z"]
    desk.now += statuses.PERIOD_S
    desk.told()
    assert desk.last[-1].reason == Reason("reloaded", "x")


def test_the_gravest_thing_is_the_headline() -> None:
    board = Bulletin()
    order = ("heat", "news", "sinks", "shortage", "fatal")
    for name in order:
        setattr(board, name, Reason(name, name))
        assert board.headline == Reason(name, name)
    for name in reversed(order):
        setattr(board, name, None)
    assert board.headline is None


def test_notes_from_many_threads_are_all_kept() -> None:
    board = Bulletin()

    def note(writer: int) -> None:
        for number in range(200):
            board.note(f"{writer}-{number}", number)

    threads = [threading.Thread(target=note, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(board.facts) == 1600


def test_the_daemons_state_and_sums(desk: Desk) -> None:
    for _ in range(3):
        desk.ledgers["a"].capture()
    desk.ledgers["b"].capture()
    desk.ledgers["a"].infer()
    desk.ledgers["a"].drop("overload")
    desk.told()
    whole = desk.last[-1]
    assert (whole.state, whole.captured, whole.inferred, whole.in_flight, whole.dropped) == ("running", 4, 1, 2, 1)
    assert whole.dropped_by_reason == {"overload": 1}
    desk.picture = DaemonSnapshot(model="m@1")
    desk.now += 1
    desk.told()
    assert str(desk.last[-1].state) == "starting"
    desk.bulletin.fatal = Reason("fatal", "x")
    desk.told()
    assert (desk.last[-1].state, desk.last[-1].reason) == ("failed", Reason("fatal", "x"))
    desk.bulletin.fatal = None
    assert desk.told(final=True) == ["a", "b", DAEMON]
    assert str(desk.last[-1].state) == "ended"


def test_sources_that_are_gone_have_a_last_word_and_stay_in_the_sums(desk: Desk) -> None:
    desk.told()
    desk.ledgers["b"].capture()
    desk.ledgers["b"].drop("shutdown")
    gone = desk.statuses.change_sources({"a": desk.ledgers["a"]}, list(desk.ledgers.values()))
    assert [message.source for message in gone] == ["b"]
    desk.now += 1
    assert desk.told() == ["a", DAEMON]
    assert desk.last[-1].captured == 1
    desk.statuses.change_sources(desk.ledgers, list(desk.ledgers.values()))
    assert desk.told() == ["b"], "one that comes back is news"


def test_a_wall_clock_that_was_set_is_told(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.told()
    desk.statuses._wall.wall_ns = lambda: time.time_ns() + 3_600_000_000_000
    desk.now += 1
    desk.told()
    assert desk.last[-1].clock_step_s == pytest.approx(3600, abs=1)
    assert "the wall clock was set by +3600.0 s" in caplog.text


def test_the_daemons_vitals_are_those_of_the_picture(desk: Desk) -> None:
    machine = MachineVitals(throttled=["cpu"])
    latency = {"total": {"p50": 1.0}}
    sinks = {"sinks.x": SinkSnapshot("full", 2), "publish": SinkSnapshot()}
    desk.picture = DaemonSnapshot(model="m", backend="x", latency_ms=latency, rate=0.5, subscribers=2, machine=machine)
    desk.picture = replace(desk.picture, sinks=sinks)
    desk.told()
    vitals: Any = desk.last[-1].vitals
    assert vitals.sinks == {
        "sinks.x": SinkVitals(ok=False, lost=2, text="full"),
        "publish": SinkVitals(ok=True, lost=0),
    }
    assert (vitals.latency_ms, vitals.rate, vitals.subscribers, vitals.machine) == (latency, 0.5, 2, machine)
    desk.picture = DaemonSnapshot(model="m")
    desk.now += 1
    desk.told()
    vitals = desk.last[-1].vitals
    assert not isinstance(vitals.subscribers, int)
    assert all(not isinstance(message.vitals, type(vitals)) for message in desk.last[:-1]), "only the daemon has some"


# --- messages ---


def test_times_in_a_message_are_those_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock may be set at any moment: latency is measured with the other."""
    taken = time.monotonic_ns() - 20_000_000
    made = result(t_mono_ns=taken, t_ns=123, t_media_ns=9, clock="file")
    message = detections_message(made, Identity.new(INFO, ["a"]))
    now = message.t_publish_mono_ns
    assert message.timing_ms.total == pytest.approx(20, abs=15)
    assert message.timing_ms.total == round((message.t_publish_mono_ns - taken) / 1e6, 3)
    timing = message.timing_ms
    assert (timing.queue, timing.preprocess, timing.infer, timing.decode) == (1, 2, 3, 4)
    assert (timing.receive, timing.wait, timing.publish) == (0.5, 0.25, round(made.publish_ms(now), 3))
    assert (message.t_capture_ns, message.t_capture_mono_ns, message.t_media_ns) == (123, taken, 9)
    assert abs(message.t_publish_ns - time.time_ns()) < 60_000_000_000
    assert (message.width, message.height, message.frame_id, message.seq, message.dropped) == (8, 6, 7, 0, 5)
    assert (message.model, message.backend, message.capture_clock) == ("m@1", "cpu", "file")
    assert not isinstance(detections_message(result(), Identity.new(INFO, [])).t_media_ns, int)


def test_objects_are_rounded_and_labelled() -> None:
    found = Detections(
        np.array([[0.12345, 1, 2, 3.98765]], np.float32), np.array([1.0000001], np.float32), np.array([1], np.int32)
    )
    one = Result(result().frame, 0, found, Timing(0, 0, 0, 0), 0, "cpu", INFO)
    (item,) = detection_list(one, INFO.labels)
    assert (item.class_id, item.label, item.score) == (1, "dog", 1.0)
    assert item.box == (0.123, 1.0, 2.0, 3.988)


def test_info_says_what_runs() -> None:
    identity = Identity.new(INFO, ["a", "b"])
    message = info_message(identity, "cpu", {"onnxruntime": "1"})
    assert (message.backend, message.sources, message.model) == ("cpu", ["a", "b"], INFO)
    assert message.versions["onnxruntime"] == "1"
    assert message.versions["edgeinfer"] == message.version
    assert identity.session != Identity.new(INFO, []).session


# --- the thread ---


def publisher_of(sinks: dict[str, Any], ledgers: dict[str, Ledger] | None = None) -> Publisher:
    bulletin = Bulletin()
    books = ledgers or {"a": Ledger(time.monotonic_ns)}
    identity = Identity.new(INFO, list(books))
    return Publisher(identity, books, sinks, Statistics(), bulletin, lambda: DaemonSnapshot(model="m@1"))


def test_what_was_handed_over_is_published_before_the_end() -> None:
    recorder = Recorder()
    publisher = publisher_of({"r": recorder})
    for number in range(QUEUE_DEPTH):
        assert not publisher.full
        publisher.put(result(seq=number))
    assert publisher.full
    publisher.start()
    publisher.close()
    publisher.join(WAIT_S)
    assert publisher.error is None
    assert [message.seq for message in recorder.detections("a")] == list(range(QUEUE_DEPTH))
    assert recorder.statuses(DAEMON)[-1].state == "ended"
    assert publisher.heart.silent_s() == 0
    assert publisher._stats.percentiles()["infer"]["p50"] == 3.0


def test_a_bug_in_a_sinks_service_is_the_publishers_error() -> None:
    class Buggy(Remembering):
        def service(self) -> None:
            raise RuntimeError("bug")

    sink = Buggy()
    publisher = publisher_of({"publish": sink})
    publisher.start()
    publisher.join(WAIT_S)
    assert isinstance(publisher.error, RuntimeError)
    assert sink.closed == 1
    assert publisher.heart.silent_s() == 0


def test_a_change_that_came_with_the_end_is_still_made() -> None:
    sink, added = Remembering(), Remembering()
    publisher = publisher_of({"r": sink})
    publisher.change_sinks(["r"], {"r": added})
    publisher.set_sources({}, [])
    publisher.close()
    publisher.start()
    publisher.join(WAIT_S)
    assert (sink.closed, added.closed) == (1, 1)
    assert sink.forgotten + added.forgotten == ["a"]


@pytest.mark.slow
def test_info_comes_first_and_again_with_every_change(tmp_path: Path) -> None:
    recorder = Recorder()
    publisher = publisher_of({"r": recorder})
    publisher.start()
    until(lambda: recorder.messages, "the first message")
    assert recorder.info().backend is None
    assert recorder.messages[0] is recorder.info()
    publisher.set_backend(INFO, "cpu", {})
    until(lambda: recorder.info().backend == "cpu", "the backend")
    late = Recorder()
    publisher.change_sinks([], {"late": late})
    until(lambda: late.messages, "the newcomer hears at once what there is")
    publisher.set_sources({}, [])
    until(lambda: recorder.info().sources == [], "the sources")
    publisher.close()
    publisher.join(WAIT_S)
    assert isinstance(recorder.messages[-1], StatusMessage)
