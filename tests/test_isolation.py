"""Sources in processes of their own: real ones, which are killed, frozen and flooded, and one that lies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer import frames
from edgeinfer.codes import SOURCE_REASONS
from edgeinfer.config.settings import load_config
from edgeinfer.daemon.assembly import capture_job
from edgeinfer.errors import (
    CameraError,
    ConfigError,
    EdgeinferError,
    InputError,
    StalledError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import Deadlines
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.frames import block_of
from edgeinfer.guard.limits import MAX_CHILD_BYTES, MAX_CHILD_DESCRIPTORS, MAX_LENT, MAX_PIXELS, MIN_CHILD_BYTES
from edgeinfer.interfaces import Decoding, Source, UnreadableItem
from edgeinfer.isolation import nursery as nurseries
from edgeinfer.isolation import source as isolated
from edgeinfer.isolation import talk
from edgeinfer.isolation.errors import from_plain, to_plain
from edgeinfer.isolation.lender import Lender
from edgeinfer.isolation.nursery import Forked, Nursery, share_of_memory
from edgeinfer.isolation.source import IsolatedSource, Order, open_isolated
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.sources import demo, rtsp
from edgeinfer.types import Capture, Colour, DecoderChoice
from tests.capturing import Desk, capturing
from tests.hostile_camera import hostile_camera
from tests.outside import install

DEMO = Order("demo", "demo:", demo.Options(width=320, height=240, realtime=False))
LIVE = Order("demo", "demo:", demo.Options(width=320, height=240, fps=100))
LIMITS = Deadlines(stall=0.7, timeout=2, first=15, grace=4)

OUTSIDE = """
import io, os, time
import msgspec, numpy as np
from edgeinfer.errors import CameraError
from edgeinfer.sources._clock import stamped

class Options(msgspec.Struct, frozen=True, kw_only=True):
    then: str

def open(uri, options):
    return Odd(options.then)

class Odd:
    live, fps = True, 0.0

    def __init__(self, then):
        self.then = then

    def read(self):
        exec(self.then)
        blank = np.zeros((4, 4, 3), np.uint8)
        return stamped(self.__dict__.pop("image", blank), "arrival")

    def close(self):
        pass
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], IsolatedSource]]:
    """Opens a source of somebody else's that does something before it gives a picture."""
    install(monkeypatch, tmp_path, "odd.source", OUTSIDE)
    own = Nursery()
    monkeypatch.setattr(isolated, "nursery", own)
    opened: list[IsolatedSource] = []

    def open_odd(then: str, patience_s: float = 20, memory_bytes: int | None = None) -> IsolatedSource:
        import odd.source  # type: ignore[import-not-found] # noqa: PLC0415 (made above)

        order = Order("odd.source", "odd.source:", odd.source.Options(then=then))
        opened.append(open_isolated(order, "cam", lambda _: patience_s, memory_bytes))
        return opened[-1]

    yield open_odd
    for source in opened:
        source.close()
    own.close()


def read(source: Source) -> Capture:
    capture = source.read()
    assert capture is not None
    return capture


def failure(source: Source) -> CameraError:
    with pytest.raises(CameraError) as caught:
        source.read()
    return caught.value


def read_until_failure(source: Source) -> CameraError:
    try:
        for _ in range(10_000):
            source.read()
    except CameraError as error:
        return error
    raise AssertionError("it goes on for ever")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.mark.slow
def test_pictures_are_those_of_the_source_and_are_not_copied() -> None:
    source = open_isolated(DEMO, "cam", lambda _: 20)
    try:
        direct = demo.Demo(demo.Options(width=320, height=240, realtime=False))
        for index in range(20):
            capture = read(source)
            assert (capture.image == direct.render(index)).all()
            assert not capture.image.flags.writeable
            block = block_of(capture.image)
            assert block is not None
            assert block.address == capture.image.ctypes.data, "a GPU reads it where it lies"
            assert capture.t_media_ns == round(index / 30 * 1e9)
            assert capture.clock == "arrival"
            assert time.monotonic_ns() - capture.t_mono_ns < 20e9
        assert (source.live, source.fps) == (False, 30.0)
    finally:
        source.close()
    assert gone(source.pid)


def test_memory_goes_round_and_is_given_back() -> None:
    before = frames.store.held
    source = open_isolated(DEMO, "cam", lambda _: 20)
    kept = [read(source).image for _ in range(5)]
    copies = [image.copy() for image in kept]
    for _ in range(50):
        read(source)
    assert frames.store.held - before <= 8 * kept[0].nbytes
    source.close()
    assert all((image == copy).all() for image, copy in zip(kept, copies, strict=True)), "they outlive the process"
    kept.clear()
    assert frames.store.held == before


@pytest.mark.slow
def test_a_picture_that_the_source_made_elsewhere_comes_too(odd: Callable[[str], IsolatedSource]) -> None:
    assert not read(odd("")).image.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "code", "says"),
    [
        ("os._exit(3)", "crashed", "exit code 3"),
        ("os.abort()", "crashed", "Aborted"),
        ("os.kill(os.getpid(), 11)", "crashed", "Segmentation fault"),
        ("raise CameraError('codec', 'no', lasting=True)", "codec", "no"),
        ("self.big = np.ones(600 << 20, np.uint8)", "memory", "more memory than it may have"),
        ("from edgeinfer.frames import pool; pool.empty(16384, 16385)", "codec", "too many pixels"),
    ],
)
def test_what_happens_there_is_an_error_here(
    odd: Callable[[str], IsolatedSource], then: str, code: str, says: str
) -> None:
    error = failure(odd(then))
    assert error.code == code
    assert says in str(error)
    assert error.lasting == (code == "codec")


@pytest.mark.slow
def test_what_is_no_error_of_ours_is_told_by_its_name(odd: Callable[[str], IsolatedSource]) -> None:
    with pytest.raises(EdgeinferError, match="SystemExit: 0"):
        odd("raise SystemExit(0)").read()


@pytest.mark.slow
def test_a_process_that_swells_gets_no_more(odd: Callable[..., IsolatedSource]) -> None:
    source = odd("self.kept = [*getattr(self, 'kept', []), np.ones(8 << 20, np.uint8)]", memory_bytes=64 << 20)
    assert read_until_failure(source).code == "memory"


@pytest.mark.slow
def test_a_process_has_few_descriptors_and_writes_no_file(odd: Callable[[str], IsolatedSource], tmp_path: Path) -> None:
    with pytest.raises(EdgeinferError, match="Too many open files"):
        odd(f"self.kept = [os.dup(0) for _ in range({MAX_CHILD_DESCRIPTORS})]").read()
    path = tmp_path / "written"
    with pytest.raises(EdgeinferError, match="File too large"):
        odd(f"io.open({str(path)!r}, 'w').write('x' * 100000)").read()
    assert not path.exists() or not path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "then",
    [
        "from edgeinfer.frames import pool; self.small, self.image = pool.empty(2, 2), pool.empty(4, 4)",
        "from edgeinfer.frames import pool; self.kept = [*getattr(self, 'kept', []), pool.empty(4, 4)][-6:]",
        "from edgeinfer.frames import pool; self.same = getattr(self, 'same', None) or [pool.empty(4, 4)]; "
        "self.image = self.same[0]",
        "from edgeinfer.frames import pool; self.image = pool.empty(8, 4)[4:]",
    ],
)
def test_memory_may_be_used_as_in_a_thread(odd: Callable[[str], IsolatedSource], then: str) -> None:
    source = odd(then)
    kept = [read(source) for _ in range(12)]
    assert {capture.image.shape for capture in kept} == {(4, 4, 3)}


@pytest.mark.slow
def test_an_error_of_any_length_comes(odd: Callable[[str], IsolatedSource]) -> None:
    error = failure(odd("raise CameraError('codec', 'é' * 700_000, 'x' * 700_000)"))
    assert error.code == "codec"
    assert error.message.startswith("é" * 100)


@pytest.mark.slow
def test_what_a_process_has_started_ends_with_it(odd: Callable[[str], IsolatedSource]) -> None:
    source = odd("import subprocess; self.other = subprocess.Popen(['sleep', '600'])")
    read(source)
    (other,) = psutil.Process(source.pid).children()
    source.close()
    wait_until(lambda: gone(other.pid), "it holds the camera still")


@pytest.mark.slow
def test_a_fork_that_fails_is_no_harm_to_the_others() -> None:
    own = Nursery()
    first = IsolatedSource(own.fork("demo"), LIVE.to_plain(), "cam", lambda _: 20)
    answer = own._ask({"fork": "demo", "memory_bytes": 1}, 20)  # without the descriptor that it needs
    assert "refused" in answer
    read(first)
    first.close()
    own.close()


@pytest.mark.slow
def test_a_template_that_is_slow_is_waited_for_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nurseries, "WAIT_S", 0.02)
    own = Nursery()
    with pytest.raises(TemporaryError, match="slow"):
        own.fork("demo")
    forked: list[Forked] = []

    def forks() -> bool:
        with contextlib.suppress(TemporaryError):
            forked.append(own.fork("demo"))
        return bool(forked)

    wait_until(forks, "it is killed while it is still starting")
    source = IsolatedSource(forked[0], LIVE.to_plain(), "cam", lambda _: 20)
    read(source)
    source.close()
    own.close()


@pytest.mark.slow
def test_a_process_that_came_too_late_leaves_no_zombie(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Nursery()
    first = own.fork("demo")
    template = psutil.Process(first.pid).parent()
    assert template is not None
    template.suspend()
    with monkeypatch.context() as hurry:
        hurry.setattr(nurseries, "WAIT_S", 0.05)
        with pytest.raises(TemporaryError, match="slow"):
            own.fork("demo")
    template.resume()
    second = own.fork("demo")  # on the way to this answer the late one is found
    third = own.fork("demo")
    assert {child.pid for child in template.children()} == {first.pid, second.pid, third.pid}
    for child in (first, second, third):
        child.end()
    own.close()


@pytest.mark.slow
def test_a_template_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Nursery()
    first = own.fork("demo")
    template = psutil.Process(first.pid).parent()
    assert template is not None
    monkeypatch.setattr(nurseries, "WAIT_S", 0.05)
    monkeypatch.setattr(nurseries, "HANGS_S", 0.3)
    template.suspend()
    forked: list[Forked] = []

    def forks() -> bool:
        with contextlib.suppress(TemporaryError):
            forked.append(own.fork("demo"))
        return bool(forked)

    wait_until(forks, "it is asked again and again, and never given up")
    assert gone(template.pid)
    first.end()
    forked[0].end()
    own.close()


@pytest.mark.slow
def test_a_process_that_hangs_is_ended(odd: Callable[..., IsolatedSource]) -> None:
    source = odd("time.sleep(600)", patience_s=0.2)
    assert failure(source).code == "hung"
    assert gone(source.pid)


@pytest.mark.slow
def test_one_that_hangs_when_it_is_to_leave_is_ended(odd: Callable[..., IsolatedSource]) -> None:
    source = odd("")
    read(source)
    os.kill(source.pid, signal.SIGSTOP)
    source.close()
    assert gone(source.pid)


@pytest.mark.slow
def test_a_video_without_an_end_begins_anew_where_its_process_is_killed(clip: Path) -> None:
    config = load_config(None, [("sources.c", {"uri": str(clip), "realtime": True, "loop": True})]).sources["c"]
    job, desk, pids = capture_job("c", config, Ledger(lambda: 0), Mailbox()), Desk(), list[int]()

    def open_noted() -> Source:
        source = job.open()
        assert isinstance(source, IsolatedSource)
        pids.append(source.pid)
        return source

    with capturing(desk, open_noted, LIMITS, reconnect=job.reconnect):
        desk.until(desk.got(3), "frames")
        os.kill(pids[0], signal.SIGKILL)
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        desk.until(desk.got(3), "frames of the new process")
    assert desk.code("reconnecting") == "crashed"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_a_process_that_dies_or_stops_is_replaced(number: int) -> None:
    desk, pids = Desk(), list[int]()

    def open_noted() -> IsolatedSource:
        source = open_isolated(LIVE, "cam", lambda _: 1)
        pids.append(source.pid)
        return source

    with capturing(desk, open_noted, LIMITS, reconnect=True):
        desk.until(desk.got(10), "frames")
        os.kill(pids[0], number)
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        desk.until(desk.got(10), "frames of the new process")
    assert desk.code("reconnecting") in {"crashed", "hung"}
    assert all(map(gone, pids))
    ids = [frame.frame_id for frame in desk.frames]
    assert ids == sorted(set(ids))


@pytest.mark.slow
def test_where_the_process_that_makes_them_dies_so_do_its_children_and_there_are_others() -> None:
    own = Nursery()
    first = IsolatedSource(own.fork("demo"), LIVE.to_plain(), "cam", lambda _: 20)
    read(first)
    template = psutil.Process(first.pid).parent()
    assert template is not None
    template.kill()
    read_until_failure(first)
    first.close()
    with contextlib.suppress(TemporaryError):  # that it is gone shows when it is asked for the first time
        own.fork("demo").end()
    second = IsolatedSource(own.fork("demo"), LIVE.to_plain(), "cam", lambda _: 20)
    read(second)
    second.close()
    wait_until(lambda: gone(first.pid), "a child outlived the process that it was forked from")
    own.close()


def test_where_no_process_can_be_made_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(nurseries, "spawn", no_more)
    with pytest.raises(TemporaryError, match="Too many open files"):
        Nursery().fork("demo")


@pytest.mark.slow
def test_no_process_outlives_its_daemon() -> None:
    code = (
        "import time\nfrom edgeinfer.isolation.source import *\nfrom edgeinfer.sources import demo\n"
        "source = open_isolated(Order('demo', 'demo:', demo.Options()), 'cam', lambda _: 5)\nsource.read()\n"
        "print(source.pid, flush=True)\ntime.sleep(60)"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    template = psutil.Process(pid).ppid()
    daemon.kill()
    daemon.communicate()
    wait_until(lambda: gone(pid) and gone(template), "a camera is held although nobody reads it")


@pytest.mark.parametrize(
    ("children", "total", "share"),
    [
        (1, 64 << 30, MAX_CHILD_BYTES),
        (16, 8 << 30, 256 << 20),
        (1, 2 << 30, 256 << 20),
        (64, 4 << 30, MIN_CHILD_BYTES),
    ],
)
def test_the_share_of_a_process(children: int, total: int, share: int) -> None:
    assert share_of_memory(children, total) == share


@pytest.mark.slow
def test_a_camera_whose_pictures_never_end_takes_no_more_than_its_share() -> None:
    """An H.264 picture in fragments (RFC 6184, FU-A) of which none is the last."""
    desk, peak = Desk(), [0]

    def open_noted() -> IsolatedSource:
        order = Order("rtsp", camera.url, rtsp.Options(decoder="av", connect_s=3))
        source = open_isolated(order, "cam", lambda _: 4, 64 << 20)
        watched.append(source.pid)
        return source

    watched = list[int]()
    with hostile_camera() as camera, capturing(desk, open_noted, LIMITS, reconnect=True):

        def troubled() -> bool:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    peak[0] = max(peak[0], child.memory_info().rss)
            return camera.connections >= 2

        desk.until(troubled, "a second try", timeout_s=60)
    assert peak[0] < 256 << 20
    assert desk.books.captured == 0


# Against a process that lies


class Liar:
    """Stands in for a source's process: a thread that answers whatever a test wants."""

    pid = 4242

    def __init__(self, *answers: dict[str, Any] | bytes | int, opened: dict[str, Any] | None = None) -> None:
        self._opened = {"live": True, "fps": 0} if opened is None else opened
        self.peer, self._theirs = talk.pair()
        self.ended = 0
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, talk.Gone, talk.Nonsense), self._theirs:
            for answer in ({"opened": self._opened}, *self._answers):
                talk.close(talk.receive(self._theirs, 20)[1])
                if isinstance(answer, int):  # so many descriptors that nobody asked for
                    socket.send_fds(self._theirs, [b'{"end": true}'], [0] * answer)
                else:
                    self._theirs.send(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def end(self) -> str:
        self.ended += 1
        self.peer.close()
        self._thread.join(20)
        return ""


IMAGE = {"kind": "bgr", "block": 1, "height": 4, "width": 4}
SURFACE = {**IMAGE, "kind": "nv12", "matrix": "bt709", "full_range": False}
PICTURE = {"picture": IMAGE, "t_ns": 1, "t_mono_ns": 1, "clock": "arrival", "t_media_ns": None, "seen": None}
NUMBERS = st.one_of(st.integers(), st.floats(), st.none(), st.text(), st.booleans(), st.just(1), st.just(4))
PORTRAITS = st.one_of(
    NUMBERS,
    *(st.fixed_dictionaries({key: st.just(value) | NUMBERS for key, value in one.items()}) for one in (IMAGE, SURFACE)),
)
ANSWERS = st.one_of(
    st.binary(max_size=40),
    st.dictionaries(st.sampled_from([*PICTURE, "end", "none", "need", "error", "code", "message", "lasting"]), NUMBERS),
    st.fixed_dictionaries({key: st.one_of(st.just(value), NUMBERS) for key, value in PICTURE.items()}),
    st.builds(lambda portrait: {**PICTURE, "picture": portrait}, PORTRAITS),
    st.fixed_dictionaries({"need": st.one_of(NUMBERS, st.just(48))}),
    st.fixed_dictionaries({"error": st.sampled_from(["CameraError", "X", "MemoryError"]), "message": NUMBERS}),
)


@given(st.lists(ANSWERS, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_whatever_a_process_says_the_error_is_one_of_a_source(answers: list[dict[str, Any] | bytes]) -> None:
    liar = Liar(*answers)
    source = IsolatedSource(liar, {}, "cam", lambda _: 20)
    with contextlib.suppress(EdgeinferError, UnreadableItem):
        for _ in answers:
            source.read()
    source.close()
    source.close()
    assert liar.ended == 1


@pytest.mark.parametrize(
    "answer",
    [
        PICTURE,
        {**PICTURE, "picture": True},
        {**PICTURE, "picture": {**IMAGE, "block": True}},
        {**PICTURE, "picture": {**IMAGE, "kind": "yuv"}},
        {**PICTURE, "picture": {**IMAGE, "kind": []}},
        {**PICTURE, "picture": SURFACE},
        {**PICTURE, "seen": [4]},
        {**PICTURE, "seen": [4, 0]},
        {**PICTURE, "seen": "44"},
        {**PICTURE, "clock": "mine"},
        {**PICTURE, "t_ns": 1.5},
        {**PICTURE, "picture": {**IMAGE, "height": 0}},
        {"opened": {}},
        {"error": "SystemExit", "message": ""},
        b"[]",
        b"[" * 5000,
        b"\xff",
        b"",
    ],
)
def test_a_process_that_talks_nonsense_is_ended(answer: Any) -> None:
    liar = Liar(answer)
    assert failure(IsolatedSource(liar, {}, "cam", lambda _: 20)).code == "crashed"
    assert liar.ended == 1


class Lent(Liar):
    """Asks for a block of `size` bytes, and says of it whatever a test wants."""

    def __init__(self, size: int, **answer: Any) -> None:
        super().__init__({"need": size}, {**PICTURE, **answer})


def reading(liar: Liar) -> IsolatedSource:
    return IsolatedSource(liar, {}, "cam", lambda _: 20)


def test_a_surface_comes_as_what_it_was() -> None:
    source = reading(Lent(24, picture=SURFACE, seen=[40, 30]))
    capture = read(source)
    assert isinstance(capture.picture, HostSurface)
    assert capture.picture.shape == Shape("nv12", 4, 4)
    assert capture.picture.colour == Colour("bt709", False)
    assert capture.size == (40, 30)
    assert block_of(capture.picture.memory) is not None
    source.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "p010"},  # which needs twice the memory
        {"width": 5},
        {"matrix": "mine"},
        {"matrix": ["bt709"]},
        {"full_range": 1},
        {"kind": "surface"},
        {"block": 2},
    ],
    ids=str,
)
def test_a_surface_that_can_not_be_one_ends_its_process(wrong: dict[str, Any]) -> None:
    liar = Lent(24, picture={**SURFACE, **wrong})
    assert failure(reading(liar)).code == "crashed"
    assert liar.ended == 1


def test_what_decodes_is_told_in_few_printable_words() -> None:
    told = {"name": "av\x1b[2J", "why": "w" * 9000}
    source = reading(Liar(opened={"live": True, "fps": 0, "decoder": told}))
    assert isinstance(source, Decoding)
    assert "\x1b" not in source.decoder.name
    assert len(source.decoder.why) <= 200
    source.close()
    plain = reading(Liar())
    assert not isinstance(plain, Decoding)
    plain.close()


@pytest.mark.parametrize("told", [{"name": "av"}, {"name": 1, "why": ""}, "av", []])
def test_a_decoder_that_is_none_ends_its_process(told: Any) -> None:
    liar = Liar(opened={"live": True, "fps": 0, "decoder": told})
    with pytest.raises(CameraError, match="no such decoder"):
        reading(liar)
    assert liar.ended == 1


SURFACES = """
import msgspec, numpy as np
from edgeinfer.frames import pool
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.sources._clock import stamped
from edgeinfer.types import Colour, DecoderChoice

class Options(msgspec.Struct, frozen=True, kw_only=True):
    own: bool

def open(uri, options):
    return Gives(options.own)

class Gives:
    live, fps = True, 0.0
    decoder = DecoderChoice("av", "it is there")

    def __init__(self, own):
        self.count, self.own, self.one = 0, own, None

    def read(self):
        if self.one is None or not self.own:
            shape = Shape("i420", 5, 3)
            memory = np.empty(shape.size, np.uint8) if self.own else pool.bytes(shape.size)
            memory[:] = range(self.count, self.count + shape.size)
            self.one = HostSurface(memory, shape, Colour("bt2020", True))
            self.count += 1
        return stamped(self.one, "arrival")

    def close(self):
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_surfaces_come_from_a_process_uncopied_or_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """`own`: its source made the memory itself, and shows the same picture again and again."""
    install(monkeypatch, tmp_path, "odd.surfaces", SURFACES)
    nursery = Nursery()
    monkeypatch.setattr(isolated, "nursery", nursery)
    import odd.surfaces  # type: ignore[import-not-found] # noqa: PLC0415 (made above)

    source = open_isolated(Order("odd.surfaces", "odd.surfaces:", odd.surfaces.Options(own=own)), "cam", lambda _: 20)
    try:
        pictures = [read(source).picture for _ in range(4)]
        for number, picture in enumerate(pictures):
            assert isinstance(picture, HostSurface)
            assert picture.memory.tolist() == list(range(number * (not own), number * (not own) + 27))
            assert picture.colour == Colour("bt2020", True)
            block = block_of(picture.memory)
            assert block is not None
            assert block.address == picture.memory.ctypes.data
        assert isinstance(source, Decoding)
        assert source.decoder == DecoderChoice("av", "it is there")
    finally:
        source.close()
        nursery.close()


@pytest.mark.slow
def test_a_process_stopped_as_soon_as_it_is_made_does_not_outlive_the_one_that_makes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = "import signal\nfrom edgeinfer.isolation import template\n"
    stopped += "template._live = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)\n"
    before, after = nurseries._CODE.split("from edgeinfer.isolation.template import main")
    monkeypatch.setattr(nurseries, "_CODE", f"{before}{stopped}from edgeinfer.isolation.template import main{after}")
    nursery = Nursery()
    forked = nursery.fork("demo")
    child = psutil.Process(forked.pid)
    wait_until(lambda: child.status() == psutil.STATUS_STOPPED, "it does not stop")
    nursery.close()
    wait_until(lambda: gone(child.pid), "a child that is stopped outlived the process that it was forked from")
    forked.end()


def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    source = IsolatedSource(Liar(*[3] * 20), {}, "cam", lambda _: 20)
    before = psutil.Process().num_fds()
    for _ in range(20):
        assert source.read() is None
    assert psutil.Process().num_fds() <= before + 2, "others may open one meanwhile"
    source.close()


def test_a_process_gets_so_much_memory_and_no_more() -> None:
    store = frames.Store(limit=1600)
    lender = Lender(store)
    for _ in range(MAX_LENT):
        os.close(lender.lend(10)[1])
    with pytest.raises(StalledError, match="as much memory"):
        lender.lend(10)
    lender.close()
    os.close(lender.lend(300)[1])  # one picture may be of any size
    with pytest.raises(StalledError, match="as much memory"):
        lender.lend(10)
    lender.take_back([MAX_LENT + 1])
    assert store.held == 0


def test_memory_that_was_used_once_is_given_back_for_others() -> None:
    before = frames.store.held
    source = open_isolated(DEMO, "cam", lambda _: 20)
    kept = [read(source) for _ in range(30)]
    size = kept[0].image.nbytes
    kept.clear()
    for _ in range(3):
        read(source)
    assert frames.store.held - before <= 6 * size
    source.close()


@pytest.mark.parametrize(("told", "fps"), [(0.1, 0.1), (30, 30.0), (1e-9, 0.0), (1e12, 0.0), (-1, 0.0)])
def test_a_slow_source_has_its_time_and_an_absurd_rate_is_none(told: float, fps: float) -> None:
    asked = list[float]()

    def patience(rate: float) -> float:
        asked.append(rate)
        return 20.0

    source = IsolatedSource(Liar(opened={"live": True, "fps": told}), {}, "cam", patience)
    assert asked == [source.fps] == [fps]
    source.close()


def test_a_picture_from_the_future_is_none() -> None:
    liar = Liar({"need": 48}, {**PICTURE, "t_mono_ns": time.monotonic_ns() + 10**12})
    source = IsolatedSource(liar, {}, "cam", lambda _: 20)
    assert failure(source).code == "crashed"


def test_a_process_that_asks_for_memory_again_and_again_is_ended() -> None:
    liar = Liar(*[{"need": 48, "drop": [number] if number else []} for number in range(30)])
    source = IsolatedSource(liar, {}, "cam", lambda _: 20)
    before = frames.store.held
    assert failure(source).code == "crashed"
    assert frames.store.held == before


@pytest.mark.parametrize("size", [4 * MAX_PIXELS + 1, 1 << 61])
def test_pictures_that_are_too_large_are_refused_before_there_is_memory_for_them(size: int) -> None:
    source = IsolatedSource(Liar({"need": size}), {}, "cam", lambda _: 20)
    before = frames.store.held
    error = failure(source)
    assert (error.code, error.lasting) == ("codec", True)
    assert frames.store.held == before
    source.close()


ERRORS = st.one_of(
    st.builds(CameraError, st.sampled_from(sorted(SOURCE_REASONS)), st.text(), st.text(), st.booleans()),
    *(
        st.builds(kind, st.text(), st.text())
        for kind in (ConfigError, InputError, StalledError, TemporaryError, UnavailableError)
    ),
    st.builds(UnreadableItem, st.text()),
)


@given(ERRORS)
def test_an_error_comes_as_what_it_was(error: Exception) -> None:
    came = from_plain(json.loads(json.dumps(to_plain(error))), "cam")
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert getattr(came, "code", "") == getattr(error, "code", "")
    assert getattr(came, "lasting", False) == getattr(error, "lasting", False)


def test_a_frame_does_not_change_when_its_memory_is_lent_again() -> None:
    source = open_isolated(DEMO, "cam", lambda _: 20)
    images = [read(source).image for _ in range(6)]
    first = np.array(images[0])
    del images[1:]
    for _ in range(10):
        read(source)
    assert (images[0] == first).all()
    source.close()
