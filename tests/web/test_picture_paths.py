"""Single pictures and MJPEG, as other programs read them."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from msgspec import structs

from edgeinfer.errors import StalledError
from edgeinfer.guard.limits import MAX_MJPEG_STREAMS, MAX_SNAPSHOTS
from edgeinfer.messages import Reason
from edgeinfer.types import Image
from edgeinfer.web.site import pictures
from edgeinfer.web.site.server import Site
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.sign import Sign
from tests.test_publisher import until
from tests.web.serving import Everybody, ask, serving, views
from tests.web.showing import HEIGHT, WIDTH, detections, info, result, square_at, square_in, status
from tests.web.test_viewing import Gate
from tests.web.watching import publishing

SNAPSHOT, STREAM = "/api/v1/sources/a/snapshot.jpg", "/api/v1/sources/a/stream.mjpg"


@dataclass
class Shown:
    site: Site
    views: Views


@pytest.fixture
def shown() -> Iterator[Shown]:
    made = views()
    made.gallery.write(info("a", "b"), None)
    with serving(made) as site:
        yield Shown(site, made)


def decoded(jpeg: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


# --- snapshots ---


def test_a_snapshot_is_the_picture_of_now_and_has_its_name(shown: Shown) -> None:
    with publishing(shown.views.gallery, "a", period_s=0.05) as published:
        published.number = 30
        for _ in range(3):
            reply = ask(shown.site, SNAPSHOT)
            assert (reply.status, reply.headers["content-type"]) == (200, "image/jpeg")
            session, _, frame_id = reply.headers["etag"].strip('"').rpartition("-")
            assert session == "x"
            left, top = square_at(int(frame_id))
            assert np.allclose(square_in(reply.body)[:2], (left, top), atol=3)
            assert decoded(reply.body).shape == (HEIGHT, WIDTH, 3)
            assert published.number - int(frame_id) < 30
    until(lambda: not shown.views.gallery.viewers, "nobody looks any more")


@pytest.mark.parametrize(("asked", "width"), [("128", 128), ("1", 64), ("99999", WIDTH), ("333", 333)])
def test_a_snapshot_has_the_width_that_is_asked_for(shown: Shown, asked: str, width: int) -> None:
    with publishing(shown.views.gallery, "a"):
        assert decoded(ask(shown.site, f"{SNAPSHOT}?width={asked}").body).shape[1] == width


def test_boxes_are_drawn_where_they_are_asked_for(shown: Shown) -> None:
    watch = shown.views.gallery.watch(lambda: None)
    shown.views.gallery.look(watch, ["a"])
    shown.views.gallery.write(detections("a", 3), result("a", number=3))
    plain = decoded(ask(shown.site, f"{SNAPSHOT}?boxes=0").body).astype(int)
    drawn = decoded(ask(shown.site, f"{SNAPSHOT}?boxes=1").body).astype(int)
    rows, columns = np.nonzero(np.abs(drawn - plain).max(axis=2) > 60)
    left, top = square_at(3)
    assert rows.size
    assert columns.min() >= left - 4
    assert rows.min() >= top - 40


def test_a_picture_that_is_known_is_not_sent_again(shown: Shown) -> None:
    watch = shown.views.gallery.watch(lambda: None)
    shown.views.gallery.look(watch, ["a"])
    shown.views.gallery.write(detections("a", 3), result("a", number=3))
    first = ask(shown.site, SNAPSHOT)
    again = ask(shown.site, SNAPSHOT, If_None_Match=first.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    shown.views.gallery.write(detections("a", 4), result("a", number=4))
    assert ask(shown.site, SNAPSHOT, If_None_Match=first.headers["etag"]).status == 200
    assert ask(shown.site, SNAPSHOT, method="HEAD").body == b""


@pytest.mark.parametrize("path", [SNAPSHOT, STREAM])
def test_pictures_that_there_are_none_of(shown: Shown, path: str) -> None:
    assert ask(shown.site, path.replace("/a/", "/c/")).status == 404
    reply = ask(shown.site, f"{path}?width=wide")
    assert (reply.status, reply.error) == (400, "bad-request")
    assert ask(shown.site, path, method="DELETE").status == 403, "whatever changes something is for an admin"


def test_a_snapshot_of_a_camera_that_gives_nothing(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "WAIT_S", 0.05)
    reply = ask(shown.site, SNAPSHOT)
    assert (reply.status, reply.error) == (503, "no-picture")
    assert int(reply.headers["retry-after"]) > 0
    until(lambda: not shown.views.gallery.viewers, "nobody looks any more")


def test_a_snapshot_that_can_not_be_made(shown: Shown) -> None:
    watch = shown.views.gallery.watch(lambda: None)
    shown.views.gallery.look(watch, ["a"])
    gate: Any = Gate(error=StalledError("no room for a picture"))
    gate.opened.set()
    shown.views.gallery.write(detections("a", 3), result("a", gate))
    reply = ask(shown.site, SNAPSHOT)
    assert (reply.status, reply.error) == (503, "no-picture")
    assert "no room" in reply.json["error"]["text"]


def begin(site: Site, path: str, stack: ExitStack) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    stack.callback(connection.close)
    connection.request("GET", path)
    return connection


def test_one_snapshot_too_many_is_told_so(shown: Shown) -> None:
    with ExitStack() as stack:
        waiting = [begin(shown.site, SNAPSHOT, stack) for _ in range(MAX_SNAPSHOTS)]
        until(lambda: shown.views.gallery.viewers == MAX_SNAPSHOTS, "all wait")
        reply = ask(shown.site, SNAPSHOT)
        assert (reply.status, reply.error) == (503, "too-many")
        shown.views.gallery.write(detections("a", 0), result("a"))
        assert {connection.getresponse().status for connection in waiting} == {200}
    assert shown.views.encoder.made == 1


# --- MJPEG ---


class Stream:
    """The parts as they come."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.answer = answer
        assert answer.status == 200
        self._boundary = answer.headers["content-type"].partition("boundary=")[2].encode()

    def next(self) -> tuple[bytes, str]:
        """A part's JPEG and its name; nothing at the end."""
        line = self.answer.readline().strip()
        if line != b"--" + self._boundary:
            assert line in (b"", b"--" + self._boundary + b"--")
            return b"", ""
        headers = dict[bytes, bytes]()
        while (line := self.answer.readline().strip()) != b"":
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        assert headers[b"content-type"] == b"image/jpeg"
        jpeg = self.answer.read(int(headers[b"content-length"]))
        assert self.answer.readline() == b"\r\n"
        return jpeg, headers.get(b"etag", b"").decode()


@contextmanager
def streaming(site: Site, path: str = STREAM) -> Iterator[Stream]:
    with ExitStack() as stack:
        answer = begin(site, path, stack).getresponse()
        stack.callback(answer.close)
        yield Stream(answer)


def number_of(tag: str) -> int:
    return int(tag.strip('"').rpartition("-")[2])


@pytest.mark.slow
def test_a_stream_shows_each_picture_in_its_turn(shown: Shown) -> None:
    with publishing(shown.views.gallery, "a"), streaming(shown.site, f"{STREAM}?fps=60") as stream:
        numbers = []
        for _ in range(20):
            jpeg, tag = stream.next()
            numbers.append(number_of(tag))
            assert np.allclose(square_in(jpeg)[:2], square_at(numbers[-1]), atol=3)
        assert numbers == sorted(set(numbers))
    until(lambda: not shown.views.gallery.viewers, "nobody looks any more")


@pytest.mark.slow
def test_a_stream_gives_no_more_pictures_than_are_asked_for(shown: Shown) -> None:
    with publishing(shown.views.gallery, "a"), streaming(shown.site, f"{STREAM}?fps=10") as stream:
        stream.next()
        begun_s = time.monotonic()
        for _ in range(5):
            stream.next()
        assert time.monotonic() - begun_s >= 0.4


@pytest.mark.parametrize("fps", ["0", "-1", "61", "nan", "inf", "x", ""])
def test_rates_that_are_none(shown: Shown, fps: str) -> None:
    assert ask(shown.site, f"{STREAM}?fps={fps}").status == 400


@pytest.mark.slow
def test_a_stream_ends_when_its_source_does(shown: Shown) -> None:
    for how in ("ended", "removed"):
        with publishing(shown.views.gallery, "a"), streaming(shown.site) as stream:
            stream.next()
            if how == "ended":
                shown.views.gallery.write(status("a", "ended"), None)
            else:
                shown.views.gallery.forget("a")
                shown.views.gallery.write(info("b"), None)
            while stream.next()[0]:
                pass
            assert not stream.answer.read()


def test_while_a_camera_gives_nothing_a_sign_says_so(shown: Shown) -> None:
    """An old picture would pass for what is there now."""
    gallery = shown.views.gallery
    with streaming(shown.site) as stream:
        until(lambda: gallery._lookers, "somebody looks")
        gallery.write(detections("a", 0), result("a"))
        assert number_of(stream.next()[1]) == 0
        for _ in range(3):
            gallery.write(status("a", "stalled"), None)
        sign, tag = stream.next()
        assert not tag
        image = decoded(sign)
        assert image.shape[1] == 640
        assert image.mean() < 60
        assert (image > 150).any(), "words"
        gallery.write(status("a"), None)
        gallery.write(detections("a", 1), result("a", number=1))
        assert number_of(stream.next()[1]) == 1


def test_a_sign_says_why() -> None:
    message = status("a", "stalled")
    assert Sign.of(message, "a") == Sign(("a: stalled",))
    assert Sign.of(status("a"), "a") is None
    assert Sign.of(None, "a") is None
    for width in (64, 640, 1 << 16):
        assert Sign(("a: stalled", "no frame " * 50)).jpeg(width)
    why = structs.replace(message, reason=Reason("timeout", "no frame for 2 s"))
    assert Sign.of(why, "a") == Sign(("a: stalled", "no frame for 2 s"))


def test_a_stream_asked_for_by_its_head_has_no_end_to_wait_for(shown: Shown) -> None:
    reply = ask(shown.site, STREAM, method="HEAD")
    assert reply.status == 200
    assert "multipart/x-mixed-replace" in reply.headers["content-type"]


def test_one_stream_too_many_is_told_so(shown: Shown) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_MJPEG_STREAMS):
            assert begin(shown.site, STREAM, stack).getresponse().status == 200
        reply = ask(shown.site, STREAM)
        assert (reply.status, reply.error) == (503, "too-many")
        assert int(reply.headers["retry-after"]) > 0
        stack.close()
        until(lambda: not shown.views.gallery.viewers, "all have gone")
    with publishing(shown.views.gallery, "a"), streaming(shown.site) as stream:
        assert stream.next()[0]


@pytest.mark.slow
def test_who_reads_nothing_of_a_stream_holds_up_nobody(shown: Shown) -> None:
    with publishing(shown.views.gallery, "a"), ExitStack() as stack:
        lazy = begin(shown.site, f"{STREAM}?fps=60&width=1920", stack).getresponse()
        with streaming(shown.site, f"{STREAM}?fps=60") as stream:
            for _ in range(50):
                assert stream.next()[0]
        assert lazy.status == 200


def test_who_may_look_no_more_sees_no_more_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LOOK_S", 0.02)
    who = Everybody("viewer")
    made = views(access=who)
    with serving(made) as site, publishing(made.gallery, "a"):
        with streaming(site) as stream:
            assert stream.next()[0]
            who.role = None
            while stream.next()[0]:
                pass
        assert ask(site, SNAPSHOT).status == 401
