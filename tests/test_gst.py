"""GStreamer sources: real pipelines in a real child process, which is stopped, killed and deceived."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer import frames
from edgeinfer.errors import (
    CameraError,
    ConfigError,
    EdgeinferError,
    StalledError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.flow.capture import Deadlines
from edgeinfer.frames import block_of
from edgeinfer.guard.redaction import redact
from edgeinfer.interfaces import Source
from edgeinfer.isolation import inside
from edgeinfer.pictures.host import HostSurface
from edgeinfer.sources import _gst_process, csi, gst, rtsp
from edgeinfer.sources._credentials import Account
from edgeinfer.sources._gst_child import Memory, receive, send
from edgeinfer.sources._gst_picture import colour_of
from edgeinfer.sources._gst_pipeline import ChildPipeline, Trouble, fitted
from edgeinfer.sources._gst_process import GstSource, Recipe, find_python
from edgeinfer.types import Capture, Colour, Matrix, size_of
from tests.capturing import Desk, capturing
from tests.conftest import CLIP_FRAMES, Cli, need_gst
from tests.rtsp_server import RtspServer

LIVE = "gst:videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1"
PASSWORD = "p@ss:/w?rd 1"  # noqa: S105 (made up)
LIMITS = Deadlines(stall=0.7, timeout=2, first=10, grace=4)


@pytest.fixture
def gst_python() -> str:
    return need_gst()


def opened(uri: str) -> GstSource:
    return gst.open(uri, gst.Options())


def read(source: Source) -> Capture:
    capture = source.read()
    assert capture is not None
    return capture


@pytest.mark.parametrize("layout", ["BGR", "BGRx", "I420"])
@pytest.mark.parametrize("width", [64, 641])
def test_pixels_come_as_they_are(gst_python: str, layout: str, width: int) -> None:
    source = opened(f"gst:videotestsrc is-live=true pattern=red ! video/x-raw,format={layout},width={width},height=48")
    try:
        capture = read(source)
    finally:
        source.close()
    assert capture.image.shape == (48, width, 3)
    blue, green, red = capture.image[:, : width - 1].reshape(-1, 3).T
    assert red.min() > 250
    assert max(blue.max(), green.max()) < 5
    assert capture.clock == "driver"


def test_a_pipeline_that_is_not_live_loses_nothing_and_ends(gst_python: str, clip: Path) -> None:
    need_gst("decodebin", "avdec_h264")
    desk = Desk()
    with capturing(desk, lambda: opened(f"gst:filesrc location={clip} ! decodebin"), LIMITS) as thread:
        desk.until(lambda: not thread.is_alive(), "the end")
    assert desk.books.captured == desk.books.inferred == CLIP_FRAMES
    assert desk.books.state == "ended"


def test_a_live_pipeline_that_ends_is_started_again(gst_python: str) -> None:
    desk = Desk()
    uri = "gst:videotestsrc is-live=true num-buffers=10 ! video/x-raw,framerate=30/1"
    with capturing(desk, lambda: opened(uri), LIMITS):
        desk.until(lambda: ("reconnecting", "closed") in desk.states, "reconnecting")
        desk.until(lambda: len(desk.frames) > 11, "frames of the next one")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("videotestsrc ! ! x", ConfigError, "syntax error"),
        ("", ConfigError, "no pipeline"),
        ("nosuchelement", UnavailableError, "nosuchelement"),
        ("filesrc location=/no/such/file ! decodebin", CameraError, "not found"),
        ("videotestsrc is-live=true ! audioconvert", EdgeinferError, ""),
        ("audiotestsrc is-live=true", EdgeinferError, ""),
    ],
)
def test_pipelines_that_are_none(gst_python: str, text: str, kind: type[EdgeinferError], says: str) -> None:
    source: GstSource | None = None
    with pytest.raises(kind) as caught:  # noqa: PT012 (some say so at the first picture)
        source = opened(f"gst:{text}")
        source.read()
    if source is not None:
        source.close()
    assert says in str(caught.value)


@pytest.mark.slow
def test_a_hung_process_is_ended_and_the_source_says_so(gst_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gst_process, "ANSWER_S", 0.5)
    source = opened(LIVE)
    read(source)
    os.kill(source.pid, signal.SIGSTOP)
    with pytest.raises(CameraError) as caught:
        source.read()
    assert caught.value.code == "hung"
    assert not psutil.pid_exists(source.pid), "a stopped process leaves when it is killed"
    source.close()


@pytest.mark.slow
def test_a_process_that_hangs_at_the_start_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gst_process, "START_S", -9.5)
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\ntrap '' TERM\nsleep 60 & wait; wait\n")
    script.chmod(0o755)
    with pytest.raises(CameraError) as caught:
        gst.open(LIVE, gst.Options(python=str(script)))
    assert caught.value.code == "hung"
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_pipeline_that_swells_gets_no_more(gst_python: str) -> None:
    everything = "queue max-size-buffers=0 max-size-bytes=0 max-size-time=0"
    text = f"videotestsrc ! video/x-raw,format=BGR,width=1280,height=720 ! {everything} ! {_gst_process.TO_SINK}"
    source = GstSource(Recipe("gst", [([], text)], memory_bytes=64 << 20))
    most, ended = 0, False
    while not ended:  # it reads far ahead of us
        try:
            source.read()
            most = max(most, psutil.Process(source.pid).memory_info().rss)
            assert most < 300 << 20
        except (CameraError, psutil.NoSuchProcess):
            ended = True
    source.close()


@pytest.mark.parametrize("layout", ["BGR", "BGRx"])
def test_a_file_loses_no_picture_while_there_is_no_memory(
    gst_python: str, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    size = 66 * 48 * 4
    monkeypatch.setattr(frames, "PATIENCE_S", 0.05)
    monkeypatch.setattr(frames.store, "_limit", frames.store.held + 5 * size)
    text = f"videotestsrc num-buffers=12 ! video/x-raw,format={layout},width=66,height=48,framerate=10/1"
    source = opened(f"gst:{text}")
    kept, places = list[Capture](), []
    letting_go = threading.Timer(0.5, kept.clear)
    letting_go.start()
    while (capture := source.read()) is not None:
        places.append(capture.t_media_ns)
        kept.append(capture)
    source.close()
    letting_go.join()
    assert places == [index * 100_000_000 for index in range(12)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_process_that_stops_or_dies_is_replaced(gst_python: str, number: int) -> None:
    desk, pids = Desk(), []

    def open_noted() -> GstSource:
        source = opened(LIVE)
        pids.append(source.pid)
        return source

    with capturing(desk, open_noted, LIMITS, reconnect=True) as thread:
        desk.until(desk.got(10), "frames")
        os.kill(pids[0], number)
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        desk.until(desk.got(10), "frames of the new process")
        assert thread.is_alive()
    assert len(pids) >= 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
    ids = [frame.frame_id for frame in desk.frames]
    assert ids == sorted(set(ids))


# Against a child of our own making, which answers what a test wants


class Child:
    """Stands in for subprocess.Popen: a thread that answers `read` by a script, over the real socket."""

    pid = 4242

    def __init__(self, live: bool, script: Sequence[Any], stubborn: bool = False) -> None:
        self.script = list(script)
        self.returncode: int | None = None
        self.signals: list[int] = []
        self.spec: dict[str, Any] = {}
        self.asked = 0
        self._live, self._stubborn = live, stubborn
        self._gone = threading.Event()

    def __call__(self, command: Sequence[str], pass_fds: Sequence[int], **_: object) -> Child:
        self.command = command
        assert command[-1] == str(pass_fds[0])
        self._peer = socket.socket(fileno=os.dup(pass_fds[0]))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def _serve(self) -> None:
        with self._peer:
            self.spec = receive(self._peer)[0]["open"]
            self._memory = Memory(self._peer)
            send(self._peer, {"opened": {"live": self._live, "fps": 0}})
            while (order := self._order()) is not None and self.script:
                self._memory.take_back(order)
                self.asked += 1
                step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                if step is None:  # it hangs
                    self._gone.wait(60)
                    break
                if step == "dies":
                    self.returncode = -11
                    break
                self._send(*(step if isinstance(step, tuple) else (step,)))
        if not self._stubborn:
            self.returncode = self.returncode or 0

    def _order(self) -> dict[str, Any] | None:
        try:
            return receive(self._peer)[0]
        except (EOFError, OSError):
            return None

    def _send(self, answer: dict[str, Any], pixels: bytes = b"") -> None:
        send(self._peer, {**answer, "picture": self._memory.write(pixels)} if pixels else answer)

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.returncode = -signal.SIGKILL
        self._gone.set()

    def wait(self, timeout: float) -> int:
        if self._stubborn or self._gone.is_set() or self.signals:
            if self.returncode is None:
                raise subprocess.TimeoutExpired("child", timeout)
            return self.returncode
        self._thread.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("child", timeout)
        return self.returncode


PICTURE = {"width": 2, "height": 2, "size": 16, "format": "BGR", "pts": 40, "age_ns": 5_000_000}
PIXELS = bytes([1, 2, 3, 4, 5, 6, 99, 99, 7, 8, 9, 10, 11, 12, 99, 99])
NONE = {"none": True}
Answering = Callable[..., "tuple[GstSource, Child]"]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    opened_sources: list[GstSource] = []

    def make(*script: Any, live: bool = True, clock: Any = "driver", stubborn: bool = False) -> tuple[GstSource, Child]:
        child = Child(live, script, stubborn)
        monkeypatch.setattr(subprocess, "Popen", child)
        recipe = Recipe("cam", [(["a", "b"], "a ! b")], {"a": {"key": "value"}}, clock, remedy="install it")
        opened_sources.append(GstSource(recipe, "python"))
        return opened_sources[-1], child

    yield make
    for source in opened_sources:
        source.close()


def test_a_child_is_told_what_to_play_over_the_socket_alone(answering: Answering) -> None:
    source, child = answering(NONE)
    assert child.spec["pipelines"] == [{"needs": ["a", "b"], "text": "a ! b"}]
    assert child.spec["properties"] == {"a": {"key": "value"}}
    assert "value" not in " ".join(child.command)
    assert (source.live, source.pid) == (True, 4242)


@pytest.mark.parametrize("layout", ["BGR", "BGRx"])
def test_rows_are_as_long_as_the_child_says_and_pictures_stay_as_they_were(answering: Answering, layout: str) -> None:
    padded = bytes([1, 2, 3, 0, 4, 5, 6, 0, 99, 99, 7, 8, 9, 0, 10, 11, 12, 0, 99, 99])
    described = {**PICTURE, "format": layout, "size": 16 if layout == "BGR" else 20}
    source, _ = answering(
        (described, PIXELS if layout == "BGR" else padded), ({**described, "pts": 80}, bytes(len(padded)))
    )
    first, second = read(source), read(source)
    assert first.image.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert not second.image.any()
    assert not first.image.flags.writeable
    assert block_of(first.image) is not None


def test_a_stamp_that_stands_still_is_no_new_picture(answering: Answering) -> None:
    source, child = answering((PICTURE, PIXELS), (PICTURE, PIXELS), NONE, ({**PICTURE, "pts": 41}, PIXELS))
    read(source)
    read(source)
    assert child.asked == 4


def test_a_live_pipeline_that_gives_nothing_stalls_and_a_file_may_take_its_time(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gst_process, "READ_DEADLINE_S", 0.0)
    with pytest.raises(StalledError, match="no new picture"):
        answering(NONE)[0].read()
    assert answering(NONE, NONE, (PICTURE, PIXELS), live=False)[0].read() is not None


def test_the_end_of_a_file_is_one_and_that_of_a_camera_is_a_failure(answering: Answering) -> None:
    assert answering({"end": True}, live=False)[0].read() is None
    with pytest.raises(CameraError) as caught:
        answering({"end": True})[0].read()
    assert (caught.value.code, caught.value.lasting) == ("closed", False)


@pytest.mark.parametrize(
    ("expected", "says"),
    [(CameraError, "cam: 401"), (ConfigError, "gst-launch-1.0"), (UnavailableError, "install it")],
)
def test_what_the_child_complains_of_is_an_error_of_ours(
    answering: Answering, expected: type[EdgeinferError], says: str
) -> None:
    trouble = Trouble("401", "unauthorized", expected.__name__)
    source, _ = answering(trouble.answer({"what": "cam", "remedy": "install it"}))
    with pytest.raises(expected, match=says) as caught:
        source.read()
    if isinstance(caught.value, CameraError):
        assert (caught.value.code, caught.value.lasting) == ("unauthorized", True)


@pytest.mark.parametrize(
    ("age_ns", "live", "clock", "stamped_by"),
    [
        (50_000_000, True, "driver", "driver"),
        (0, True, "driver", "driver"),
        (-1, True, "driver", "arrival"),
        (1_000_000_000, True, "driver", "arrival"),
        (None, True, "driver", "arrival"),
        (50_000_000, True, "arrival", "arrival"),
        (50_000_000, False, "driver", "file"),
    ],
)
def test_whose_stamp_a_picture_has(
    answering: Answering, age_ns: int | None, live: bool, clock: str, stamped_by: str
) -> None:
    source, _ = answering(({**PICTURE, "age_ns": age_ns}, PIXELS), live=live, clock=clock)
    before = time.monotonic_ns()
    capture = read(source)
    after = time.monotonic_ns()
    assert capture.clock == stamped_by
    assert capture.t_media_ns == (None if live else 40)
    taken = capture.t_mono_ns + (age_ns or 0 if stamped_by == "driver" else 0)
    assert before <= taken <= after


def test_pictures_of_changing_sizes_cost_no_descriptors(answering: Answering) -> None:
    sizes = [(2 + number % 2, 6 * (2 + number % 2)) for number in range(20)]
    script = [
        ({**PICTURE, "height": side, "size": 8 * side, "pts": number}, bytes(8 * side))
        for number, (side, _) in enumerate(sizes)
    ]
    source, _ = answering(*script)
    read(source)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (no other descriptor for it)
    for _ in range(15):
        read(source)
    assert len(os.listdir("/proc/self/fd")) <= before + 3, "others may open one meanwhile"  # noqa: PTH208


def test_a_picture_that_is_too_large_is_refused_before_it_is_copied(answering: Answering) -> None:
    source, _ = answering({**PICTURE, "width": 8193, "height": 8192, "picture": 1})
    with pytest.raises(CameraError, match="too many") as caught:
        source.read()
    assert (caught.value.code, caught.value.lasting) == ("codec", True)


# YUV, and pictures that are made smaller on their way


@pytest.mark.parametrize("layout", ["I420", "NV12", "P010_10LE"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (66, 50), (641, 479)])
def test_yuv_comes_as_it_is(gst_python: str, layout: str, width: int, height: int) -> None:
    bars = f"gst:videotestsrc is-live=true pattern=smpte ! video/x-raw,width={width},height={height},format"
    kept, same = opened(f"{bars}={layout}"), opened(f"{bars}=BGR")
    try:
        surface, image = read(kept).picture, read(same).image
    finally:
        kept.close()
        same.close()
    assert isinstance(surface, HostSurface)
    assert surface.shape.layout == {"I420": "i420", "NV12": "nv12", "P010_10LE": "p010"}[layout]
    assert (surface.width, surface.height) == (width, height)
    middles = slice(4, height * 2 // 3 - 4), [width * (2 * bar + 1) // 14 for bar in range(7)]
    assert np.abs(surface.image()[middles].astype(int) - image[middles]).max() <= 6


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(2, 2048), st.integers(2, 2048))
def test_a_picture_that_is_made_smaller_keeps_its_shape(width: int, height: int, across: int, down: int) -> None:
    size = fitted((width, height), (across, down))
    assert size[0] % 2 == size[1] % 2 == 0
    assert size[0] <= max(2, min(width, across) + 1)
    assert size[1] <= max(2, min(height, down) + 1)
    scale = min(1, across / width, down / height)
    assert abs(size[0] - max(2, width * scale)) <= 1
    assert abs(size[1] - max(2, height * scale)) <= 1


SOFTWARE = _gst_process.FROM_NVMM_TO_SINK.replace("nvvidconv", "videoconvert ! videoscale")
"""What NVIDIA's element does in one, by two that run everywhere."""


@pytest.mark.parametrize(("turned", "seen"), [(False, (1280, 720)), (True, (720, 1280))])
def test_pictures_are_made_smaller_before_they_are_copied(gst_python: str, turned: bool, seen: tuple[int, int]) -> None:
    turn = "videoflip method=clockwise ! " if turned else ""
    scaler = SOFTWARE.replace(
        "videoconvert ! videoscale name=edgeinfer_scaler",
        f"videoconvert name=edgeinfer_scaler ! {turn}videoscale add-borders=false",
    )
    text = f"videotestsrc is-live=true pattern=red ! video/x-raw,width=1280,height=720 ! {scaler}"
    source = GstSource(Recipe("gst", [([], text)], fit=(416, 416), turned=turned))
    try:
        capture = read(source)
    finally:
        source.close()
    assert size_of(capture.picture) == ((234, 416) if turned else (416, 234))
    assert capture.seen == capture.size == seen
    assert capture.image[..., 2].min() > 245


def test_a_picture_that_is_small_enough_stays_as_it_is(gst_python: str) -> None:
    text = f"videotestsrc is-live=true ! video/x-raw,width=320,height=240 ! {SOFTWARE}"
    source = GstSource(Recipe("gst", [([], text)], fit=(416, 416)))
    try:
        capture = read(source)
    finally:
        source.close()
    assert size_of(capture.picture) == capture.size == (320, 240)


@pytest.mark.parametrize(
    ("colorimetry", "height", "colour"),
    [
        ("bt709", 480, Colour("bt709")),
        ("bt601", 1080, Colour("bt601")),
        ("2:4:16:4", 1080, Colour("bt601")),
        ("1:4:0:0", 480, Colour("bt601", True)),
        ("1:3:5:1", 480, Colour("bt709", True)),
        ("bt2020", 480, Colour("bt2020")),
        ("2:0:0:0", 719, Colour("bt601")),
        (None, 720, Colour("bt709")),
        ("nonsense", 240, Colour("bt601")),
        (17, 240, Colour("bt601")),
    ],
)
def test_what_gstreamer_says_of_colours(colorimetry: object, height: int, colour: Colour) -> None:
    assert colour_of(colorimetry, height) == colour


@pytest.mark.parametrize(("seen", "matrix"), [((1280, 720), "bt709"), ((640, 480), "bt601"), (None, "bt601")])
def test_a_picture_that_was_made_smaller_has_the_colours_usual_at_its_former_size(
    answering: Answering, seen: tuple[int, int] | None, matrix: Matrix
) -> None:
    source, _ = answering(({**PICTURE, "format": "NV12", "seen": seen}, PIXELS))
    picture = read(source).picture
    assert isinstance(picture, HostSurface)
    assert picture.colour == Colour(matrix)


@pytest.mark.parametrize(
    "lie",
    [
        {"format": "GRAY8"},
        {"format": "NV12", "size": 5},
        {"size": 11},
        {"size": "16"},
        {"seen": 5},
        {"seen": [1]},
        {"seen": [0, 2]},
        {"seen": [2.0, 2]},
    ],
    ids=str,
)
def test_a_child_that_lies_about_a_picture_is_ended(answering: Answering, lie: dict[str, Any]) -> None:
    source, _ = answering(({**PICTURE, **lie}, PIXELS))
    with pytest.raises(CameraError) as caught:
        source.read()
    assert caught.value.code == "crashed"


def test_a_child_that_dies_is_told_with_how_it_ended(answering: Answering) -> None:
    source, _ = answering("dies")
    with pytest.raises(CameraError, match=r"ended \(Segmentation fault\)") as caught:
        source.read()
    assert caught.value.code == "crashed"
    with pytest.raises(CameraError, match="ended"):
        source.read()


def test_a_child_that_hangs_is_ended(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gst_process, "ANSWER_S", 0.05)
    source, child = answering(None, stubborn=True)
    with pytest.raises(CameraError) as caught:
        source.read()
    assert caught.value.code == "hung"
    assert child.signals == [signal.SIGKILL]


def test_a_child_that_leaves_when_the_socket_closes_gets_no_signal(answering: Answering) -> None:
    source, child = answering(NONE)
    source.close()
    assert (child.signals, child.returncode) == ([], 0)
    source, child = answering(NONE, stubborn=True)
    source.close()
    assert child.signals == [signal.SIGKILL]


class FakeGst:
    """What the child asks of GStreamer to choose and to judge."""

    CLOCK_TIME_NONE = 2**64 - 1

    class MessageType:
        ERROR = 1

    def __init__(self, *elements: str) -> None:
        self.ElementFactory = self
        self.find = elements.__contains__


def test_the_child_takes_the_first_pipeline_whose_elements_are_all_there() -> None:
    child = ChildPipeline.__new__(ChildPipeline)
    child.gst = FakeGst("b", "c")
    candidates = [{"needs": ["a", "b"], "text": "1"}, {"needs": ["b", "c"], "text": "2"}, {"needs": [], "text": "3"}]
    assert child.choose(candidates) == "2"
    with pytest.raises(Trouble, match="no a here") as caught:
        child.choose([{"needs": ["x"], "text": "0"}, *candidates[:1]])
    assert caught.value.kind == "UnavailableError"


@pytest.mark.parametrize(
    ("domain", "number", "code", "lasting"),
    [
        ("gst-resource-error-quark", 3, "not_found", True),
        ("gst-resource-error-quark", 15, "unauthorized", True),
        ("gst-resource-error-quark", 9, "closed", False),
        ("gst-stream-error-quark", 4, "codec", True),
        ("gst-stream-error-quark", 99, "input", False),
    ],
)
def test_what_the_childs_pipeline_complains_of_has_a_code(domain: str, number: int, code: str, lasting: bool) -> None:
    child = ChildPipeline.__new__(ChildPipeline)
    child.gst = FakeGst()
    error = SimpleNamespace(domain=domain, code=number, message="it broke")
    source = SimpleNamespace(get_name=lambda: "src0")
    messages = [SimpleNamespace(parse_error=lambda: (error, ""), src=source), None]
    child.bus = SimpleNamespace(pop_filtered=lambda kind: messages.pop(0))
    with pytest.raises(Trouble) as caught:
        child.check_bus()
    answer = caught.value.answer({"what": "gst", "remedy": ""})
    assert answer["message"] == "gst: src0: it broke"
    assert (answer["error"], answer["code"], answer["lasting"]) == ("CameraError", code, lasting)
    child.check_bus()


def test_the_age_of_a_buffer_is_that_by_the_pipelines_clock() -> None:
    child = ChildPipeline.__new__(ChildPipeline)
    child.gst = FakeGst()
    clock: Any = SimpleNamespace(get_time=lambda: 1000)
    child.pipeline = SimpleNamespace(get_clock=lambda: clock, get_base_time=lambda: 300)
    assert child.age_ns(500) == 200
    assert child.age_ns(FakeGst.CLOCK_TIME_NONE) is None
    clock = None
    assert child.age_ns(500) is None


def test_no_process_outlives_its_daemon(gst_python: str) -> None:
    code = (
        "import sys, time\nfrom edgeinfer.sources import gst\n"
        f"source = gst.open({LIVE!r}, gst.Options())\nsource.read()\nprint(source.pid, flush=True)\ntime.sleep(60)"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    daemon.kill()
    daemon.communicate()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it holds the camera although nobody reads it"
        time.sleep(0.05)


def test_buffers_whose_stamps_stand_still_are_no_pictures(gst_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gst_process, "READ_DEADLINE_S", 0.3)
    source = opened(LIVE)
    try:
        read(source)
        last, ask = source._last_pts, source._ask
        monkeypatch.setattr(source, "_ask", lambda *order: {**ask(*order), "pts": last})
        with pytest.raises(StalledError, match="no new picture"):
            source.read()
    finally:
        source.close()


@pytest.fixture
def bare_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The system's Python has PyGObject, and there is no description of GStreamer for it: gir1.2-gstreamer-1.0."""
    folder = tmp_path / "lib" / "gi"
    (folder / "repository").mkdir(parents=True)
    (folder / "__init__.py").write_text("def require_version(name, version): raise ValueError('not available')\n")
    (folder / "repository" / "__init__.py").touch()
    python = tmp_path / "python3"
    code = f"import sys; sys.path.insert(0, {str(folder.parent)!r}); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{code}" "$3"\n')
    python.chmod(0o755)
    monkeypatch.setattr(_gst_process, "SYSTEM_PYTHON", str(python))
    monkeypatch.setattr(_gst_process, "_we_have_it", lambda: False)
    clear_memory()
    yield python
    clear_memory()


def clear_memory() -> None:
    find_python.cache_clear()
    rtsp._can_use_it.cache_clear()


BOTH = "python3-gi gir1.2-gstreamer-1.0"


def test_with_half_of_the_bindings_it_says_what_to_install(bare_python: Path) -> None:
    with pytest.raises(UnavailableError, match=f"apt install {BOTH}"):
        opened(LIVE)
    bare_python.unlink()
    with pytest.raises(UnavailableError, match=f"apt install {BOTH}"):
        opened(LIVE)
    assert BOTH in csi.recipe("csi://0", csi.Options()).remedy
    assert BOTH in Recipe("gst", []).remedy


@pytest.mark.slow
def test_a_python_that_does_not_answer_at_present_is_asked_again(
    bare_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is starting may be too busy: that must not end a camera for good."""
    monkeypatch.setattr(_gst_process, "PROBE_S", 0.2)
    bare_python.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(TemporaryError, match="has not answered"):
        opened(LIVE)
    bare_python.write_text("#!/bin/sh\n")
    monkeypatch.setattr(_gst_process, "PROBE_S", 60)
    assert find_python() == str(bare_python)


@pytest.mark.slow
def test_where_no_python_can_use_nvidias_decoder_pyav_does_and_one_warning_says_how_to_mend_it(
    bare_python: Path, monkeypatch: pytest.MonkeyPatch, rtsp_server: RtspServer, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: True)
    for _ in range(2):
        assert rtsp.isolate(rtsp_server.url(), rtsp.Options()) is True
        assert rtsp.starting(rtsp_server.url(), rtsp.Options()) is None
        source = rtsp.open(rtsp_server.url(), rtsp.Options())
        assert isinstance(source, rtsp.NetworkCamera)
        source.close()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"apt install {BOTH}" in warning.getMessage()


def test_where_plugins_around_nvidias_decoder_are_missing_pyav_does_it(
    monkeypatch: pytest.MonkeyPatch, gst_python: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: True)
    monkeypatch.setattr(rtsp, "missing_packages", lambda: ["gstreamer1.0-plugins-bad"])
    clear_memory()
    assert rtsp.isolate("rtsp://cam/x", rtsp.Options()) is True
    clear_memory()
    assert "apt install gstreamer1.0-plugins-bad" in caplog.text
    assert BOTH not in caplog.text


@pytest.mark.slow
def test_the_plugins_of_this_machine_are_where_they_are_looked_for(tmp_path: Path) -> None:
    need_gst("rtspsrc", "rtph264depay", "h264parse", "decodebin")
    assert rtsp.missing_packages() == []
    assert rtsp.missing_packages(tmp_path) == [
        "gstreamer1.0-plugins-bad",
        "gstreamer1.0-plugins-base",
        "gstreamer1.0-plugins-good",
    ]


def test_what_is_opened_is_what_was_said_of_it(
    monkeypatch: pytest.MonkeyPatch, rtsp_server: RtspServer, gst_python: str
) -> None:
    need_gst("rtspsrc", "rtph264depay", "h264parse", "decodebin")
    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: True)
    clear_memory()
    for options in (rtsp.Options(), rtsp.Options(decoder="av"), rtsp.Options(decoder="gstreamer")):
        source = rtsp.open(rtsp_server.url(), options)
        own = rtsp.isolate(rtsp_server.url(), options) is None
        assert isinstance(source, GstSource) is own is (options.decoder != "av")
        source.close()
    monkeypatch.setattr(inside, "_here", [True])
    source = rtsp.open(rtsp_server.url(), rtsp.Options())
    assert isinstance(source, rtsp.NetworkCamera), "a process that was made for PyAV starts no other"
    source.close()


def test_an_interpreter_that_is_not_there_and_one_without_the_bindings(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file"):
        gst.open(LIVE, gst.Options(python=str(tmp_path / "none")))
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$2" "$3"\n')
    bare.chmod(0o755)
    with pytest.raises(UnavailableError, match="bindings are missing"):
        gst.open(LIVE, gst.Options(python=str(bare)))


def test_a_pipeline_without_elements_is_none() -> None:
    with pytest.raises(ConfigError, match="there is no pipeline"):
        gst.open("gst: ", gst.Options(python="/nonexistent"))


# CSI


def test_the_pipeline_of_a_csi_camera() -> None:
    recipe = csi.recipe("csi://1", csi.Options(width=1920, height=1080, fps=29.97, flip=2))
    ((needs, text),) = recipe.pipelines
    assert set(needs) == {"nvarguscamerasrc", "nvvidconv"}
    assert "sensor-id=1 " in text
    assert "width=1920,height=1080,framerate=2997/100" in text
    assert "nvvidconv flip-method=2 name=edgeinfer_scaler ! " in text
    assert "video/x-raw,format=(string)NV12 ! appsink" in text
    assert not recipe.turned


@pytest.mark.parametrize("flip", range(8))
def test_a_camera_that_is_turned_on_its_side_is_wide_where_it_was_high(flip: int) -> None:
    assert csi.recipe("csi://0", csi.Options(flip=flip)).turned is (flip % 2 == 1)


@pytest.mark.parametrize("uri", ["csi://", "csi://x", "csi://0 ! filesink location=x", "csi://123"])
def test_what_is_no_csi_camera(uri: str) -> None:
    with pytest.raises(ConfigError, match="the number of the sensor"):
        csi.open(uri, csi.Options())


def test_a_machine_without_csi_says_so(gst_python: str) -> None:
    if any(Path("/usr/lib").glob("*/gstreamer-1.0/libgstnvarguscamerasrc.so")):
        pytest.skip("this machine has it")
    with pytest.raises(UnavailableError, match=r"no nvarguscamerasrc.*nvidia-l4t-gstreamer"):
        csi.open("csi://0", csi.Options())


# RTSP through GStreamer, and GStreamer's own server for both decoders


@pytest.fixture(scope="module")
def gst_server() -> Iterator[int]:
    python = need_gst("x264enc", "rtph264pay", "rtspsrc", "decodebin")
    script = Path(__file__).with_name("gst_rtsp_server.py")
    process = subprocess.Popen(
        [python, "-I", str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PASSWORD": PASSWORD}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.skip("gir1.2-gst-rtsp-server-1.0 is not installed")
    yield int(line)
    process.kill()
    process.communicate()


DECODERS = pytest.mark.parametrize("decoder", ["av", "gstreamer"])


def camera(port: int, path: str = "camera", **options: Any) -> Source:
    return rtsp.open(f"rtsp://127.0.0.1:{port}/{path}", rtsp.Options(connect_s=10, **options))


@DECODERS
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_with_an_account_over_tcp_and_udp(gst_server: int, decoder: str, transport: str) -> None:
    source = camera(gst_server, user="admin", password=PASSWORD, decoder=decoder, transport=transport)
    try:
        captures = [read(source) for _ in range(5)]
    finally:
        source.close()
    assert captures[-1].image.shape == (240, 320, 3)
    assert captures[-1].image.max() > 200, "the ball"


@DECODERS
@pytest.mark.parametrize(
    ("path", "password", "code"),
    [("camera", "wrong", "unauthorized"), ("camera", None, "unauthorized"), ("none", PASSWORD, "not_found")],
)
def test_refusals_have_their_codes(gst_server: int, decoder: str, path: str, password: str | None, code: str) -> None:
    source: Source | None = None
    with pytest.raises(CameraError) as caught:  # noqa: PT012 (GStreamer says so at the first picture)
        source = camera(gst_server, path, user="admin", password=password, decoder=decoder)
        source.read()
    if source is not None:
        source.close()
    assert (caught.value.code, caught.value.lasting) == (code, True)
    assert "wrong" not in str(caught.value)
    assert "admin" not in str(caught.value)


def test_no_process_list_shows_a_password(gst_server: int) -> None:
    source = camera(gst_server, user="admin", password=PASSWORD, decoder="gstreamer")
    assert isinstance(source, GstSource)
    try:
        shown = " ".join(psutil.Process(source.pid).cmdline())
    finally:
        source.close()
    assert "admin" not in shown
    assert PASSWORD not in shown
    assert PASSWORD not in repr(source._recipe)


@pytest.mark.slow
def test_a_server_that_freezes_and_thaws_through_gstreamer(rtsp_server: RtspServer) -> None:
    need_gst("rtspsrc", "decodebin", "avdec_h264")
    desk, options = Desk(), rtsp.Options(decoder="gstreamer", silence_s=1.5)
    with capturing(desk, lambda: rtsp.open(rtsp_server.url(), options), LIMITS, reconnect=True):
        desk.until(desk.got(10), "frames")
        rtsp_server.freeze()
        try:
            desk.until(desk.state_is("stalled"), "stalled")
            desk.until(desk.state_is("reconnecting"), "reconnecting")
        finally:
            rtsp_server.thaw()
        desk.until(desk.got(10), "frames after the thaw")


def test_the_hardware_decoder_is_found_where_jetpack_puts_it(tmp_path: Path) -> None:
    assert not rtsp.has_hardware_decoder(tmp_path)
    folder = tmp_path / "usr/lib/aarch64-linux-gnu/gstreamer-1.0"
    folder.mkdir(parents=True)
    (folder / "libgstnvvideo4linux2.so").touch()
    assert rtsp.has_hardware_decoder(tmp_path)
    (first, _), (second, _) = rtsp.recipe(Account("rtsp://cam/x"), rtsp.Options()).pipelines
    assert first == ("nvv4l2decoder", "nvvidconv")
    assert second == ()


# The command line


def test_run_reads_a_pipeline(gst_python: str, cli: Cli) -> None:
    process = cli("run", "--source", LIVE, "--frames", "3", "--set", "publish=null", "--jsonl", "-")
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 3


@pytest.mark.parametrize(("text", "code"), [("gst:videotestsrc ! ! x", 78), ("gst:nosuchelement", 69)])
def test_run_says_what_is_wrong_with_a_pipeline(gst_python: str, cli: Cli, text: str, code: int) -> None:
    process = cli("run", "--source", text, "--set", "publish=null")
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6), st.sampled_from(["", '"', "'"]))
def test_no_pipeline_shows_its_password(secret: str, quote: str) -> None:
    text = f"gst:rtspsrc location=rtsp://cam/x user-id=me user-pw={quote}{secret}{quote} ! decodebin"
    assert f"={quote}{secret}" not in redact(text)
    assert "decodebin" in redact(text)
