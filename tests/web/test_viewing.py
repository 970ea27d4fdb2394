"""What is shown: kept only for those who look, made once for all, and of what is newest; nobody is waited for."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from edgeinfer.errors import OutOfMemoryError, StalledError
from edgeinfer.guard.limits import MAX_KEPT_JPEGS
from edgeinfer.interfaces import Forgetful, Selective
from edgeinfer.messages import Message, Reason, StatusMessage
from edgeinfer.pictures.colour import reference_bgr
from edgeinfer.pictures.host import HostSurface, Layout
from edgeinfer.pictures.showing import MAX_BUFFERS, Shrinker, fitting, jpeg
from edgeinfer.types import Colour
from edgeinfer.web.viewing.bell import Bell
from edgeinfer.web.viewing.encoding import Encoded, Encoder, Form
from edgeinfer.web.viewing.gallery import KEPT_NS, Gallery, Shot
from edgeinfer.web.viewing.viewer import (
    CREDITS,
    DEFAULT_WIDTH,
    MAX_WIDTH,
    MIN_WIDTH,
    STEP,
    STOPPED_S,
    WORDS_AT_ONCE,
    Viewer,
    usable_width,
)
from tests.test_publisher import until
from tests.test_surfaces import COLOURS, LAYOUTS, surface
from tests.web.showing import HEIGHT, WIDTH, detections, info, planted, result, square_in, status


def nothing() -> None:
    pass


# --- pictures ---


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000))
def test_a_picture_keeps_its_shape_and_never_grows(width: int, height: int, widest: int) -> None:
    across, down = fitting(width, height, widest)
    assert across == min(width, widest)
    assert 1 <= down <= height
    assert abs(down - height * across / width) <= 0.5 or down == 1


def smooth(layout: Layout, width: int, height: int, colour: Colour) -> HostSurface:
    """One whose samples change slowly, so that neither its size nor where its chroma lies says much."""
    picture = surface(layout, width, height, colour)
    memory = picture.memory
    memory.flags.writeable = True
    for plane, base in ((picture.luma, 60), *((chroma, 110) for chroma in picture.chroma)):
        ramp = np.add.outer(np.linspace(0, 40, plane.shape[0]), np.linspace(0, 60, plane.shape[1])) + base
        plane[:] = (ramp * (256 if plane.dtype == np.uint16 else 1)).astype(plane.dtype)
    memory.flags.writeable = False
    return picture


@pytest.mark.parametrize("colour", COLOURS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [64, 100, 200, 400])
def test_a_surface_made_small_has_the_colours_that_the_formula_says(layout: Layout, colour: Colour, width: int) -> None:
    picture = smooth(layout, 200, 120, colour)
    found = Shrinker().reduced(picture, width)
    across, down = min(width, 200), round(120 * min(width, 200) / 200)
    assert found.shape == (down, across, 3)
    scale = 256.0 if picture.shape.depth == 2 else 1.0
    planes: list[Any] = [
        cv2.resize(np.asarray(plane / scale, np.float32), (across, down), interpolation=cv2.INTER_AREA)
        for plane in (picture.luma, *picture.chroma)
    ]
    wanted = reference_bgr(planes[0], planes[1], planes[2], colour)
    assert np.abs(found - wanted).max() <= 6


@pytest.mark.parametrize(("size", "width"), [((1920, 1080), 640), ((1280, 720), 640), ((7, 5), 64), ((801, 601), 400)])
def test_an_image_made_small_is_the_mean_of_what_lies_under_each_pixel(size: tuple[int, int], width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image: Any = cv2.GaussianBlur(noise, (0, 0), 5)
    found = Shrinker().reduced(image, width)
    wanted = cv2.resize(image, fitting(*size, width), interpolation=cv2.INTER_AREA)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 4


class Elsewhere:
    """A surface in a device's memory, which says how it is asked for."""

    on_device, written, planes, colour = True, 0, None, Colour()

    def __init__(self, picture: HostSurface, fetchable: bool) -> None:
        self.width, self.height = picture.width, picture.height
        self.asked: list[str] = []
        self._picture = picture
        if fetchable:
            self.host = self._host

    def image(self) -> Any:
        self.asked.append("image")
        return self._picture.image()

    def _host(self) -> HostSurface:
        self.asked.append("host")
        return self._picture

    def sample(self, grid: int) -> bytes:
        return b""


@pytest.mark.parametrize("fetchable", [True, False])
def test_of_a_surface_that_can_be_fetched_no_image_of_the_full_size_is_made(fetchable: bool) -> None:
    picture = smooth("nv12", 200, 120, Colour())
    elsewhere = Elsewhere(picture, fetchable)
    found = Shrinker().reduced(elsewhere, 100)  # type: ignore[arg-type]
    assert np.abs(found.astype(int) - Shrinker().reduced(picture, 100)).max() <= 6
    assert elsewhere.asked == ["host" if fetchable else "image"]


def test_memory_that_is_used_again_mixes_no_pictures_up() -> None:
    """Of any form and size in any order; and it is bounded."""
    shrinker = Shrinker()
    for number in range(3 * MAX_BUFFERS):
        layout, side = LAYOUTS[number % 3], 40 + 2 * (number % 50)
        picture = surface(layout, side, side, COLOURS[number % 6], seed=number)
        for made in (picture, picture.image()):
            assert np.array_equal(shrinker.reduced(made, 30), Shrinker().reduced(made, 30))
        assert len(shrinker._memory) <= MAX_BUFFERS + 20
    shrinker.forget()
    assert not shrinker._memory


def test_a_picture_that_can_not_be_encoded_is_a_lack_of_memory() -> None:
    with pytest.raises(MemoryError):
        jpeg(np.zeros((0, 0, 3), np.uint8))


# --- gallery ---


class Woken:
    """Counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.mark.slow
def test_without_viewers_no_picture_is_kept() -> None:
    gallery = Gallery()
    assert isinstance(gallery, Selective)
    assert isinstance(gallery, Forgetful)
    assert not gallery.blocks
    shown = result("a")
    kept = weakref.ref(shown.frame.capture.picture)
    gallery.write(detections("a", 0), shown)
    del shown
    gc.collect()
    assert kept() is None
    assert gallery.newest("a") is None


@pytest.mark.slow
def test_the_newest_of_what_is_looked_at_is_kept_and_older_ones_are_let_go() -> None:
    gallery, woken = Gallery(), Woken()
    watch = gallery.watch(woken)
    gallery.look(watch, ["a", "b"])
    kept = []
    for number in range(3):
        for source in ("a", "c"):
            shown = result(source, number=number)
            kept.append(weakref.ref(shown.frame.capture.picture))
            gallery.write(detections(source, number), shown)
            del shown
    gc.collect()
    assert [ref() is not None for ref in kept] == [False] * 4 + [True, False]
    newest = gallery.newest("a")
    assert newest is not None
    assert newest.message.seq == 2
    assert gallery.newest("c") is None
    assert woken.times == 3
    del newest
    gallery.leave(watch)
    gc.collect()
    assert not any(ref() is not None for ref in kept)
    gallery.leave(watch)
    assert gallery.viewers == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["look", "forget", "close", "stalled", "old"])
def test_a_picture_is_let_go_when_its_time_is_over(how: str) -> None:
    gallery = Gallery()
    watch, other = gallery.watch(nothing), gallery.watch(nothing)
    for each in (watch, other):
        gallery.look(each, ["a"])
    shown = result("a")
    kept = weakref.ref(shown.frame.capture.picture)
    at_ns = time.monotonic_ns() - (KEPT_NS if how == "old" else 0)
    gallery.write(detections("a", 0, t_publish_mono_ns=at_ns), shown)
    del shown
    if how == "look":
        gallery.look(watch, [])
        assert gallery.newest("a") is not None, "the other one looks"
        gallery.look(other, ["b"])
    elif how == "forget":
        gallery.forget("a")
    elif how == "close":
        gallery.close()
    elif how == "stalled":
        gallery.write(status("a", "running"), None)
        assert gallery.newest("a") is not None
        gallery.write(status("a", "stalled"), None)
    assert gallery.newest("a") is None
    gallery.service()
    gc.collect()
    assert kept() is None


def kinds(gallery: Gallery, watch: Any) -> dict[str, str]:
    def word(message: Message) -> str:
        return message.state if isinstance(message, StatusMessage) else ",".join(getattr(message, "sources", []))

    return {key: word(message) for key, message in gallery.take_news(watch).items()}


def test_who_comes_is_told_what_is_latched_and_then_what_changes() -> None:
    gallery, woken = Gallery(), Woken()
    assert gallery.sources is None
    gallery.write(info("a", "b"), None)
    for source in ("a", "b", "_daemon"):
        gallery.write(status(source), None)
    watch = gallery.watch(woken)
    assert kinds(gallery, watch) == {"": "a,b", "a": "running", "b": "running", "_daemon": "running"}
    assert kinds(gallery, watch) == {}
    gallery.write(status("a", number=7), None)
    gallery.write(info("a", "b"), None)
    assert woken.times == 0, "only its counters are others"
    found = gallery.status("a")
    assert found is not None
    assert found.captured == 7
    for state in ("stalled", "reconnecting"):
        gallery.write(status("a", state), None)
    assert woken.times == 2
    gallery.write(status("b", "ended"), None)
    gallery.forget("b")
    gallery.write(info("a"), None)
    assert kinds(gallery, watch) == {"a": "reconnecting", "b": "ended", "": "a"}, "the newest of each"
    assert gallery.sources == ["a"]
    assert gallery.status("b") is None
    assert kinds(gallery, gallery.watch(nothing)) == {"a": "reconnecting", "_daemon": "running", "": "a"}


def test_a_reason_that_changes_is_told() -> None:
    gallery = Gallery()
    watch = gallery.watch(nothing)
    for reason in (Reason("timeout", "x"), Reason("timeout", "y")):
        message = status("a", "stalled")
        gallery.write(structs.replace(message, reason=reason), None)
        (told,) = gallery.take_news(watch).values()
        assert isinstance(told, StatusMessage)
        assert told.reason == reason


@pytest.mark.slow
def test_threads_that_come_and_go_harm_nobody() -> None:
    gallery, ended = Gallery(), threading.Event()
    errors: list[BaseException] = []

    def look() -> None:
        try:
            while not ended.is_set():
                watch = gallery.watch(nothing)
                gallery.look(watch, ["a", "b"])
                gallery.newest("a")
                gallery.take_news(watch)
                gallery.leave(watch)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    picture = planted(0)
    for number in range(2000):
        gallery.write(detections("a", number), result("a", picture, number))
        gallery.write(status("b", ("running", "stalled")[number % 2]), None)
        gallery.service()
    ended.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert gallery.viewers == 0
    assert gallery.newest("a") is None


# --- the bell ---


def test_however_many_are_to_be_woken_the_site_is_called_once() -> None:
    called: list[Callable[[], None]] = []
    bell, first, second = Bell(called.append), Woken(), Woken()
    for _ in range(3):
        bell.ring(first)
        bell.ring(second)
    assert len(called) == 1
    called.pop()()
    assert (first.times, second.times) == (1, 1)
    bell.ring(first)
    called.pop()()
    assert (first.times, second.times) == (2, 1)


def test_a_site_that_has_ended_is_no_error_of_who_wakes_it() -> None:
    def ended(call: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    bell = Bell(ended)
    for _ in range(2):
        bell.ring(nothing)


# --- encoding ---


class Gate:
    """A surface whose picture is made when it is let."""

    on_device, written, planes, colour = False, 0, None, Colour()

    def __init__(self, number: int = 0, error: Exception | None = None) -> None:
        self.width, self.height = WIDTH, HEIGHT
        self.begun, self.opened = threading.Event(), threading.Event()
        self._number, self._error = number, error

    def image(self) -> Any:
        self.begun.set()
        assert self.opened.wait(20)
        if self._error is not None:
            raise self._error
        return planted(self._number)

    def sample(self, grid: int) -> bytes:
        return b""


def shot(number: int = 0, picture: Any = None, source: str = "a") -> Shot:
    return Shot.of(detections(source, number), planted(number) if picture is None else picture)


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    made = Encoder()
    yield made
    made.close()


def test_a_picture_is_made_once_for_all_who_want_it(encoder: Encoder) -> None:
    gate = Gate(3)
    wanted, form = shot(3, gate), Form("a", 320)
    got: list[Encoded] = []
    encoder.ask(wanted, form, got.append)
    assert gate.begun.wait(20)
    encoder.ask(wanted, form, got.append)
    gate.opened.set()
    until(lambda: len(got) == 2, "both have it")
    encoder.ask(wanted, form, got.append)
    assert len(got) == 3, "it is there already"
    assert encoder.made == 1
    assert got[0] is got[1] is got[2]
    assert got[0].framed is got[1].framed
    (box,) = (found.box for found in got[0].message.detections)
    assert np.allclose(square_in(got[0].jpeg), box, atol=3)


def test_other_sizes_and_boxes_are_other_pictures(encoder: Encoder) -> None:
    got: dict[Form, Encoded] = {}
    wanted = shot(1)
    forms = [Form("a", 320), Form("a", 2000), Form("a", 320, boxes=True)]
    for form in forms:
        encoder.ask(wanted, form, partial(got.__setitem__, form))
    until(lambda: len(got) == 3, "all are made")
    pictures = [cv2.imdecode(np.frombuffer(got[form].jpeg, np.uint8), cv2.IMREAD_COLOR) for form in forms]
    assert [picture.shape for picture in pictures if picture is not None] == [
        (180, 320, 3),
        (360, 640, 3),
        (180, 320, 3),
    ]
    plain, _, boxes = (np.asarray(picture).astype(int) for picture in pictures)
    changed = np.abs(boxes - plain).max(axis=2) > 60
    ys, xs = np.nonzero(changed)
    x1, _, _, y2 = (round(value / 2) for value in wanted.message.detections[0].box)
    assert abs(xs.min() - x1) <= 3
    assert abs(ys.max() - y2) <= 3
    assert encoder.made == 3


def test_of_what_waits_the_newest_is_made_and_those_who_asked_before_get_it(encoder: Encoder) -> None:
    gate, form = Gate(), Form("a", 64)
    got: list[int] = []

    def then(encoded: Encoded) -> None:
        got.append(encoded.message.seq)

    encoder.ask(shot(0, gate), form, then)
    assert gate.begun.wait(20)
    second, third = shot(1), shot(2)
    encoder.ask(third, form, then)
    encoder.ask(second, form, then)
    gate.opened.set()
    until(lambda: len(got) == 3, "all have one")
    assert got == [0, 2, 2]
    assert encoder.made == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StalledError("no room for a picture"), "no room"),
        (OutOfMemoryError("GPU full"), "GPU full"),
        (MemoryError(), "no memory"),
        (ValueError("a bug"), "log"),
    ],
)
def test_a_picture_that_can_not_be_made_is_told_of_and_the_next_one_is_made(
    encoder: Encoder, error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate, got = Gate(error=error), list[Encoded]()
    gate.opened.set()
    encoder.ask(shot(0, gate), Form("a", 64), got.append)
    until(lambda: got, "told")
    assert not got[0].jpeg
    assert said in got[0].why
    assert "source a: not shown" in caplog.text
    encoder.ask(shot(1), Form("a", 64), got.append)
    until(lambda: len(got) == 2, "made")
    assert got[1].jpeg
    assert encoder.made == 1


def test_made_pictures_are_bounded_in_number(encoder: Encoder) -> None:
    got: list[Encoded] = []
    shots = [shot(number, source=f"s{number}") for number in range(MAX_KEPT_JPEGS + 1)]
    for each in shots:
        encoder.ask(each, Form(each.message.source, 64), got.append)
    until(lambda: len(got) == len(shots), "all made")
    encoder.ask(shots[-1], Form(shots[-1].message.source, 64), got.append)
    assert len(got) == len(shots) + 1, "kept"
    encoder.ask(shots[0], Form(shots[0].message.source, 64), got.append)
    until(lambda: len(got) == len(shots) + 2, "made again")
    assert encoder.made == len(shots) + 1


def test_made_pictures_are_let_go_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeinfer.web.viewing.encoding.IDLE_S", 0.01)
    encoder, got = Encoder(), list[Encoded]()
    encoder.ask(shot(0), Form("a", 64), got.append)
    until(lambda: got, "made")
    kept = weakref.ref(got.pop())
    until(lambda: kept() is None, "let go")
    encoder.close()


def test_a_made_picture_does_not_hold_what_it_was_made_of(encoder: Encoder) -> None:
    got: list[Encoded] = []
    wanted, form = shot(0), Form("a", 64)
    message, source = wanted.message, weakref.ref(wanted.picture)
    encoder.ask(wanted, form, got.append)
    until(lambda: got, "made")
    del wanted
    until(lambda: source() is None, "its memory is a decoder's")
    encoder.ask(Shot.of(message, planted(0)), form, got.append)
    assert got[1] is got[0], "the JPEG is kept"


def test_without_a_thread_now_pictures_are_made_later(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    got: list[Encoded] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            encoder.ask(shot(0), Form("a", 64), got.append)
    encoder.ask(shot(1), Form("a", 64), got.append)
    until(lambda: len(got) == 2, "both have it")
    assert [encoded.message.seq for encoded in got] == [1, 1]


def test_after_its_end_nothing_is_made() -> None:
    encoder, got = Encoder(), list[Encoded]()
    encoder.close()
    encoder.ask(shot(0), Form("a", 64), got.append)
    assert not got
    assert not encoder.made


# --- a viewer ---


@given(st.integers(-10, 5000))
def test_widths_are_few_and_within_bounds(width: int) -> None:
    usable = usable_width(width)
    assert MIN_WIDTH <= usable <= MAX_WIDTH
    assert usable % STEP == 0
    assert usable >= min(width, MAX_WIDTH)
    assert usable_width(DEFAULT_WIDTH) == DEFAULT_WIDTH


class Looking(RuleBasedStateMachine):
    """A viewer, sources with ever newer pictures, and everything in any order."""

    SOURCES = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.viewer = Viewer(0.0, self.SOURCES)
        self.newest: dict[str, int] = {}
        self.clock = 0
        self.making: dict[str, int] = {}
        self.queued: list[tuple[str, int]] = []
        self.sent = 0
        self.statuses: dict[str, bytes] = {}
        self.shown: dict[str, int] = {}
        self.waiting_since: dict[str, int] = {}
        self.turn = 0

    @initialize()
    def begin(self) -> None:
        assert self.viewer.take(0) is None

    @rule(source=st.sampled_from(SOURCES))
    def captures(self, source: str) -> None:
        self.clock += 1
        self.newest[source] = self.clock

    @rule(sources=st.lists(st.sampled_from(SOURCES)))
    def looks(self, sources: list[str]) -> None:
        self.viewer.look(sources, 640)
        for source in self.SOURCES:
            if source not in sources:
                self.shown.pop(source, None)

    def due(self) -> list[str]:
        return [
            source
            for source in self.viewer.sources
            if source not in self.making and self.newest.get(source, -1) > self.shown.get(source, -1)
        ]

    @rule()
    def asks(self) -> None:
        free = CREDITS - len(self.making) - len(self.queued) - self.sent
        assert self.viewer.credits == free
        due = self.due()
        found = self.viewer.next(self.newest)
        assert (found is not None) == (free > 0 and bool(due))
        newer = [s for s in self.making if s in self.viewer.sources and self.newest[s] > self.making[s]]
        if found is None:
            assert self.viewer.waits == (free <= 0 or bool(newer)), "who has to look again, and who has not"
        if found is not None:
            assert found in due
            self.making[found] = self.newest[found]

    @precondition(lambda self: self.making)
    @rule(data=st.data(), later=st.booleans(), fails=st.booleans())
    def makes(self, data: Any, later: bool, fails: bool) -> None:
        source = data.draw(st.sampled_from(sorted(self.making)))
        mark = self.making.pop(source)
        if later:
            mark = self.newest[source]
        if fails:
            self.viewer.give_up(source, mark)
        else:
            self.viewer.add(source, mark, f"{source} {mark}".encode())
            if source in self.viewer.sources:
                self.queued.append((source, mark))
        if source in self.viewer.sources:
            assert mark > self.shown.get(source, -1), "never the same picture again, and none that is older"
            self.shown[source] = mark

    @rule(key=st.sampled_from(SOURCES), text=st.binary(min_size=1, max_size=3))
    def tells(self, key: str, text: bytes) -> None:
        self.viewer.tell(key, b"!" + text)
        self.statuses[key] = b"!" + text

    @rule()
    def sends(self) -> None:
        found = self.viewer.take(0.0)
        if self.statuses:
            assert found in self.statuses.values(), "statuses first"
            self.statuses = {key: text for key, text in self.statuses.items() if text != found} | dict(
                [(key, text) for key, text in self.statuses.items() if text == found][1:]
            )
        elif self.queued:
            source, mark = self.queued.pop(0)
            assert found == f"{source} {mark}".encode()
            self.sent += 1
        else:
            assert found is None

    @rule(count=st.integers(0, 5))
    def draws(self, count: int) -> None:
        self.viewer.drawn(count, 0.0)
        self.sent = max(0, self.sent - count)

    @invariant()
    def few_are_on_their_way(self) -> None:
        assert 0 <= self.viewer.credits <= CREDITS
        assert len(self.making) + len(self.queued) + self.sent <= CREDITS


TestLooking = Looking.TestCase


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True), st.integers(1, 40))
def test_sources_take_turns_however_fast_each_is(sources: list[str], rounds: int) -> None:
    """All have something new at any time: each comes once before any comes again."""
    viewer, order = Viewer(0.0, sources), list[str]()
    for mark in range(rounds * len(sources)):
        found = viewer.next(dict.fromkeys(sources, mark))
        assert found is not None
        order.append(found)
        viewer.add(found, mark, b"x")
        assert viewer.take(0.0) == b"x"
        viewer.drawn(1, 0.0)
    for start in range(0, len(order), len(sources)):
        assert sorted(order[start : start + len(sources)]) == sorted(sources)


def test_a_slow_source_waits_for_no_more_than_a_turn_of_each_other() -> None:
    viewer = Viewer(0.0, ["fast", "slow"])
    marks = {"fast": 0}
    order = []
    for number in range(10):
        marks["fast"] = number
        if number == 4:
            marks["slow"] = 0
        found = viewer.next(marks)
        assert found is not None
        order.append(found)
        viewer.add(found, marks[found], b"")
        viewer.take(0.0)
        viewer.drawn(1, 0.0)
    assert order[4:6] == ["slow", "fast"]
    assert order.count("slow") == 1


def test_who_draws_nothing_of_what_was_sent_has_stopped() -> None:
    viewer = Viewer(0.0, ["a"])
    assert not viewer.has_stopped(1e6), "nothing was sent"
    viewer.tell("a", b"status")
    viewer.take(0.0)
    assert not viewer.has_stopped(1e6), "of statuses nothing is drawn"
    for at_s in (1000.0, 1001.0):
        viewer.next({"a": int(at_s)})
        viewer.add("a", int(at_s), b"")
        viewer.take(at_s)
    assert not viewer.has_stopped(1000.0 + STOPPED_S)
    assert viewer.has_stopped(1000.1 + STOPPED_S)
    viewer.drawn(0, 1020.0)
    assert viewer.has_stopped(1000.1 + STOPPED_S)
    viewer.drawn(1, 1020.0)
    assert not viewer.has_stopped(1020.0 + STOPPED_S)
    assert viewer.has_stopped(1020.1 + STOPPED_S)
    viewer.drawn(1, 1100.0)
    assert not viewer.has_stopped(1e6)


def test_who_says_more_than_there_is_to_say_is_noticed() -> None:
    viewer = Viewer(0.0, ["a"])
    for number in range(1000):
        viewer.next({"a": number})
        viewer.add("a", number, b"")
        viewer.take(0.0)
        viewer.drawn(1, 0.0)
        assert viewer.may_speak(0.0), "an answer to each picture"
    spoken = 0
    while viewer.may_speak(0.0):
        spoken += 1
    assert spoken <= WORDS_AT_ONCE
    assert viewer.may_speak(1.0)


def test_a_picture_that_nobody_looks_at_any_more_is_not_sent() -> None:
    viewer = Viewer(0.0, ["a", "b"])
    assert viewer.next({"a": 1}) == "a"
    viewer.look(["b"], 640)
    viewer.add("a", 1, b"a")
    assert viewer.take(0.0) is None
    assert viewer.credits == CREDITS
