"""Contract tests over every sink plugin, one from elsewhere among them, and the thread that stands before one that
blocks."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edgeinfer.client import Subscriber
from edgeinfer.config import plugins
from edgeinfer.errors import EdgeinferError
from edgeinfer.flow import outbox as module
from edgeinfer.flow.outbox import Outbox
from edgeinfer.flow.sinkset import SinkSet
from edgeinfer.interfaces import Forgetful, Recovering, Sink
from edgeinfer.messages import Detection, DetectionsMessage, InfoMessage, Message, StatusMessage
from edgeinfer.types import Capture, Detections, Frame, Result, Timing
from tests.outside import install
from tests.test_messages import example

OUTSIDE = "my_sinks.counter"
CODE = """
from pathlib import Path

from msgspec import Struct

from edgeinfer.messages import kind_of


class Options(Struct, frozen=True, kw_only=True):
    path: str


def open(options):
    return Counter(Path(options.path))


class Counter:
    blocks = False

    def __init__(self, path):
        self._path, self._kinds = path, []

    def write(self, message, result):
        self._kinds.append(kind_of(message))

    def service(self):
        pass

    def close(self):
        self._path.write_text(" ".join(self._kinds))
"""
"""A sink in full."""

INFO, STATUS, DETECTIONS = example("info"), example("status"), example("detections")


def result(live: bool = True) -> Result:
    image = np.zeros((24, 32, 3), np.uint8)
    image.flags.writeable = False
    found = Detections(np.array([[2, 3, 20, 18]], np.float32), np.array([0.8], np.float32), np.array([0], np.int32))
    assert isinstance(INFO, InfoMessage)
    frame = Frame("front", 0, Capture(image, 0, 0), live)
    return Result(frame, 0, found, Timing(0, 0, 0, 0), 0, "cpu", INFO.model)


@pytest.fixture(params=[*plugins.names("sinks"), OUTSIDE])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == OUTSIDE:
        install(monkeypatch, tmp_path, OUTSIDE, CODE)
    return str(request.param)


SETTINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "jsonl": lambda place: {"path": f"{place}/out", "kinds": ["detections", "status", "info"]},
    "video": lambda place: {"path": f"{place}/out.mp4"},
    "zmq": lambda place: {"bind": f"ipc://{place}/out"},
    OUTSIDE: lambda place: {"path": f"{place}/out"},
}
"""How each is told to write to a folder. A new sink adds its own here."""


def opened(name: str, place: Path | str) -> Sink:
    code = plugins.load("sinks", name)
    sink: Sink = code.open(plugins.options(code, SETTINGS[name](str(place)), name))
    return sink


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sink")


def test_every_sink_takes_every_message_and_lets_go_of_everything(name: str, folder: Path) -> None:
    """And may be opened again on the same place: a reload closes and opens it."""
    for _ in range(2):
        sink = opened(name, folder)
        assert isinstance(sink.blocks, bool)
        shown = result()
        for message, made_of in ((INFO, None), (STATUS, None), (DETECTIONS, shown), (DETECTIONS, shown)):
            assert sink.write(message, made_of) is None  # type: ignore[func-returns-value]
            sink.service()
        assert not shown.frame.image.any(), "it drew into what others read too"
        sink.close()


def test_every_sink_may_be_closed_at_once(name: str, folder: Path) -> None:
    opened(name, folder).close()


def test_a_sink_that_can_not_be_opened_says_so_in_one_line(name: str, folder: Path) -> None:
    if name == OUTSIDE:
        return  # it opens nothing
    with pytest.raises(EdgeinferError) as caught:
        opened(name, folder / "not" / "there")
    assert "there" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sink_from_elsewhere_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    install(monkeypatch, tmp_path, OUTSIDE, CODE)
    sink = opened(OUTSIDE, folder)
    for message in (INFO, DETECTIONS, STATUS):
        sink.write(message, None)
    sink.close()
    assert (folder / "out").read_text() == "info detections status"


def test_json_lines_are_the_messages_of_the_kinds_that_were_chosen(folder: Path) -> None:
    sink = opened("jsonl", folder)
    sink.write(INFO, None)
    sink.write(DETECTIONS, result())
    lines = (folder / "out").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["info", "detections"], "a reader sees them at once"
    sink.close()
    again = plugins.load("sinks", "jsonl")
    few = again.open(again.Options(path=str(folder / "out")))
    few.write(STATUS, None)
    few.write(DETECTIONS, None)
    few.close()
    kinds = [json.loads(line)["kind"] for line in (folder / "out").read_text().splitlines()]
    assert kinds == ["info", "detections", "detections"], "what was there stays"


def test_a_full_disk_is_no_error_of_the_write_and_is_told() -> None:
    code = plugins.load("sinks", "jsonl")
    sink: Any = code.open(code.Options(path="/dev/full"))
    assert (sink.trouble, sink.reason, sink.lost) == ("", "", 0)
    for _ in range(3):
        sink.write(DETECTIONS, result())
    sink.write(STATUS, None)
    assert (sink.trouble, sink.reason, sink.lost) == ("No space left on device", "No space left on device", 3)
    sink.close()
    assert isinstance(sink, Recovering)


def test_a_video_shows_each_source_in_a_file_of_its_own(folder: Path) -> None:
    assert isinstance(INFO, InfoMessage)
    sink = opened("video", folder)
    sink.write(msgspec.structs.replace(INFO, sources=["front", "back"]), None)
    found = [Detection(0, "x", 0.8, (2, 3, 20, 18))]
    for source in ("front", "back", "front"):
        sink.write(msgspec.structs.replace(DETECTIONS, source=source, detections=found), result())
    sink.close()
    assert sorted(path.name for path in folder.iterdir()) == ["out-back.mp4", "out-front.mp4"]
    reader = cv2.VideoCapture(str(folder / "out-front.mp4"))
    pictures = [reader.read() for _ in range(3)]
    assert [ok for ok, _ in pictures] == [True, True, False]
    assert pictures[0][1].shape == (24, 32, 3)
    assert pictures[0][1].any(), "the box"


def test_a_sink_that_keeps_something_of_a_source_forgets_it(folder: Path) -> None:
    sink = opened("zmq", folder)
    assert isinstance(sink, Forgetful)
    assert isinstance(STATUS, StatusMessage)
    for source in ("front", "back"):
        sink.write(msgspec.structs.replace(STATUS, source=source), None)
    sink.forget("front")
    sink.forget("one that never was")
    heard: list[str] = []
    with Subscriber(f"ipc://{folder}/out", kinds=("status",)) as subscriber:
        until = time.monotonic() + 30
        while not heard and time.monotonic() < until:
            sink.service()
            message = subscriber.receive(0.02)
            heard += [message.source] if message is not None else []
        message = subscriber.receive(0.1)
    sink.close()
    assert heard == ["back"]
    assert message is None


# The thread before a sink that blocks


class Slow:
    """A sink whose every write waits for the test."""

    blocks = True
    pictures = False

    def __init__(self) -> None:
        self.written: list[Message] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.closed = threading.Event()
        self.error: BaseException | None = None
        self.close_error: BaseException | None = None

    def write(self, message: Message, made_of: Result | None) -> None:
        self.entered.release()
        assert self.go.acquire(timeout=60)
        if self.error is not None:
            raise self.error
        self.written.append(message)

    def service(self) -> None:
        raise AssertionError("nobody is to call this where `blocks` is true")

    def close(self) -> None:
        self.closed.set()
        if self.close_error is not None:
            raise self.close_error

    def flow(self) -> None:
        """Lets everything through from now on."""
        for _ in range(2000):
            self.go.release()


@pytest.fixture
def slow() -> Iterator[Slow]:
    sink = Slow()
    yield sink
    sink.flow()


def numbered(number: int) -> Message:
    assert isinstance(DETECTIONS, DetectionsMessage)
    return msgspec.structs.replace(DETECTIONS, seq=number)


def sequence(sink: Slow) -> list[int]:
    return [message.seq for message in sink.written if isinstance(message, DetectionsMessage)]


def test_everything_is_written_in_order_before_the_end(slow: Slow) -> None:
    box = Outbox("x", slow)
    for number in range(5):
        box.write(numbered(number), result())
    box.service()
    assert slow.entered.acquire(timeout=60)
    assert box.waiting == 5
    slow.flow()
    box.close()
    assert (sequence(slow), box.waiting, box.lost) == ([0, 1, 2, 3, 4], 0, 0)
    assert slow.closed.is_set()


def test_a_live_result_does_not_wait_for_room_and_is_counted_as_lost(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEPTH", 2)
    box = Outbox("x", slow)
    box.write(numbered(0), result())
    assert slow.entered.acquire(timeout=60), "the first is in the sink"
    for number in range(1, 6):
        box.write(numbered(number) if number != 4 else STATUS, result() if number != 4 else None)
    assert (box.lost, box.waiting) == (3, 3)
    slow.flow()
    box.close()
    assert sequence(slow) == [0, 1, 2]


@pytest.mark.slow
def test_a_files_result_waits_for_room_and_whoever_waits_shows_that_he_lives(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEPTH", 1)
    beats = threading.Semaphore(0)
    box = Outbox("x", slow, waiting=beats.release)
    done = threading.Event()

    def fill() -> None:
        for number in range(4):
            box.write(numbered(number), result(live=False))
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert beats.acquire(timeout=60)
    assert beats.acquire(timeout=60)
    assert not done.is_set()
    slow.flow()
    assert done.wait(60)
    box.close()
    assert (sequence(slow), box.lost, box.waiting) == ([0, 1, 2, 3], 0, 0)


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(1), ValueError("bug")])
def test_an_error_of_the_sink_is_raised_by_the_next_write_and_by_close(slow: Slow, error: BaseException) -> None:
    """Even its sys.exit, which would end a thread without a word."""
    slow.error = error
    box = Outbox("x", slow)
    box.write(numbered(0), result())
    slow.flow()
    box.join(60)
    assert not box.is_alive()
    assert slow.closed.is_set()
    with pytest.raises(Exception, match=str(error)):
        box.write(numbered(1), result())
    with pytest.raises(Exception, match=str(error)):
        box.write(numbered(1), result(live=False))
    with pytest.raises(Exception, match=str(error)):
        box.close()


def test_an_error_of_closing_is_told_unless_there_was_one_before(slow: Slow) -> None:
    slow.close_error = OSError("can't be flushed")
    box = Outbox("x", slow)
    slow.flow()
    with pytest.raises(OSError, match="can't be flushed"):
        box.close()
    other = Slow()
    other.error, other.close_error = ValueError("first"), OSError("second")
    box = Outbox("y", other)
    box.write(STATUS, None)
    other.flow()
    with pytest.raises(ValueError, match="first"):
        box.close()


def test_a_successor_writes_only_after_the_one_before_has_written_all(slow: Slow) -> None:
    later = Slow()
    later.flow()
    before = Outbox("x", slow)
    before.write(numbered(0), result())
    before.write(numbered(1), result())
    after = Outbox("x", later, after=before)
    after.write(numbered(2), result())
    before.retire()
    assert slow.entered.acquire(timeout=60)
    assert not later.entered.acquire(timeout=0.1), "it writes before its turn"
    slow.flow()
    after.close()
    assert (sequence(slow), sequence(later)) == ([0, 1], [2])
    assert slow.closed.is_set()
    before.join(60)
    assert not before.is_alive()


def test_one_that_is_retired_ends_by_itself_full_or_empty(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Slow()
    box = Outbox("idle", idle)
    box.retire()
    box.join(60)
    assert idle.closed.is_set()
    monkeypatch.setattr(module, "DEPTH", 1)
    full = Outbox("full", slow)
    full.write(numbered(0), result())
    assert slow.entered.acquire(timeout=60)
    full.write(numbered(1), result())
    full.retire()
    slow.flow()
    full.join(60)
    assert not full.is_alive()
    assert sequence(slow) == [0, 1]


def test_what_a_retired_one_could_not_write_is_told(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    slow.error = OSError("disk full")
    box = Outbox("x", slow)
    box.refused = 7
    box.write(STATUS, None)
    box.retire()
    slow.flow()
    box.join(60)
    assert [record.message for record in caplog.records] == [
        "sink:x: 7 messages were not written",
        "sink:x: disk full",
    ]


@pytest.mark.slow
def test_a_sink_that_takes_nothing_for_ever_holds_nothing_for_ever(
    slow: Slow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the next result of a file, once its patience is at an end, nor the end of the run."""
    monkeypatch.setattr(module, "DEPTH", 2)
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    box = Outbox("x", slow)
    for number in range(6):
        box.write(numbered(number), result(live=False))
    assert (box.refused, box.waiting, box.trouble) == (3, 3, module.SLOW)
    successor = Outbox("x", Slow(), after=box)
    box.close()
    assert box.waiting == 3
    assert box.is_alive(), "its write has not come back"
    assert caplog.text.count("what comes is lost until it takes something") == 1
    slow.flow()
    box.join(60)
    assert not box.is_alive(), "it ends all the same once the sink moves"
    assert sequence(slow) == [0, 1, 2]
    successor.close()


@pytest.mark.slow
def test_a_sink_that_was_stuck_is_waited_for_again_once_it_moves(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEPTH", 2)
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    box = Outbox("x", slow)
    for number in range(4):
        box.write(numbered(number), result(live=False))
    assert box.trouble == module.SLOW
    slow.flow()
    until = time.monotonic() + 60
    while box.waiting and time.monotonic() < until:
        time.sleep(0.005)
    for number in range(4, 9):
        box.write(numbered(number), result(live=False))
    assert (box.trouble, box.reason, box.lost) == ("", module.SLOW, 1)
    box.close()
    assert sequence(slow) == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.slow
def test_a_pipe_whose_reader_pauses_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    os.mkfifo(folder / "out")
    reader = os.open(folder / "out", os.O_RDONLY | os.O_NONBLOCK)
    sinks = SinkSet({"sinks.jsonl": opened("jsonl", folder)}, lambda: None)
    for number in range(2 * module.DEPTH):
        sinks.write(msgspec.structs.replace(numbered(number), model="m" * 2000), result(live=False))
    assert sinks.troubles == {"sinks.jsonl": module.SLOW}
    sinks.close()
    ((count, why),) = sinks.unwritten.values()
    assert 0 < count < 2 * module.DEPTH
    assert why == module.SLOW
    os.close(reader)  # which ends the write that hangs
