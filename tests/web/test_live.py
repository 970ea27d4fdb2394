"""The live view over a real connection: boxes belong to their picture, and no viewer costs another anything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edgeinfer.guard.limits import MAX_VIEWERS, MAX_WS_MESSAGE_BYTES
from edgeinfer.web.site import live
from edgeinfer.web.site.server import Site
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing import viewer as viewer_module
from edgeinfer.web.viewing.viewer import CREDITS
from tests.test_publisher import until
from tests.web.serving import Everybody, ask, serving, views
from tests.web.showing import detections, info, result, square_in, status
from tests.web.watching import WAIT_S, Viewer, publishing, viewing


@dataclass
class Shown:
    """A site, and what it shows."""

    site: Site
    views: Views

    def publish(self, source: str, number: int) -> None:
        self.views.gallery.write(detections(source, number), result(source, number=number))


@pytest.fixture
def shown() -> Iterator[Shown]:
    made = views()
    made.gallery.write(info("a", "b"), None)
    for source in ("a", "b"):
        made.gallery.write(status(source), None)
    with serving(made) as site:
        yield Shown(site, made)


def closed(viewer: Viewer) -> tuple[int, str]:
    """Code and reason, once the server ends it."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            viewer.next()
    code, reason = viewer.connection.close_code, viewer.connection.close_reason
    assert code is not None
    return code, reason or ""


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "sources=a&width=320", "width=1920"])
def test_boxes_belong_to_their_picture(shown: Shown, query: str) -> None:
    """The next picture's square is far from where this one's is: no mistake goes unseen."""
    with publishing(shown.views.gallery, "a", "b"), viewing(shown.site, query) as viewer:
        for _ in range(200):
            seen = viewer.picture()
            (found,) = seen.header["detections"]
            assert np.allclose(square_in(seen.jpeg), found["box"], atol=4), seen.header["frame_id"]


def test_statuses_of_all_come_first_and_then_what_changes(shown: Shown) -> None:
    with viewing(shown.site, "sources=a") as viewer:
        told = [viewer.next() for _ in range(3)]
        assert [seen.kind for seen in told] == ["info", "status", "status"]
        assert [seen.source for seen in told[1:]] == ["a", "b"]
        assert not any(seen.jpeg for seen in told)
        shown.views.gallery.write(status("a", number=5), None)
        shown.views.gallery.write(status("b", "stalled"), None)
        seen = viewer.next()
        assert (seen.kind, seen.source, seen.header["state"]) == ("status", "b", "stalled")


@pytest.mark.slow
def test_no_more_than_two_pictures_are_on_their_way_and_the_newest_wins(shown: Shown) -> None:
    with viewing(shown.site, "sources=a") as viewer:
        for number in range(CREDITS):
            until(lambda: shown.views.gallery._lookers, "somebody looks")
            shown.publish("a", number)
            assert viewer.until("detections").header["frame_id"] == number
        for number in range(CREDITS, 20):
            shown.publish("a", number)
        shown.views.gallery.write(status("b", "stalled"), None)
        assert viewer.next().kind == "status", "it waits for no credit"
        with pytest.raises(TimeoutError):
            viewer.next(0.2)
        made = shown.views.encoder.made
        assert made == CREDITS, "nothing is made for who has no credit"
        viewer.drawn()
        assert viewer.next().header["frame_id"] == 19
        viewer.drawn(5)
        with pytest.raises(TimeoutError):
            viewer.next(0.1)
        for number in (20, 21, 22):
            shown.publish("a", number)
            time.sleep(0.1)
        assert [viewer.next().header["frame_id"] for _ in range(CREDITS)] == [20, 21]
        with pytest.raises(TimeoutError):
            viewer.next(0.1)


def test_one_picture_is_made_for_all(shown: Shown) -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(viewing(shown.site, "sources=a")) for _ in range(8)]
        for viewer in viewers:
            viewer.until("status", source="b")
        until(lambda: len(shown.views.gallery._lookers.get("a", ())) == 8, "all look")
        for number in range(5):
            shown.publish("a", number)
            assert {viewer.picture().header["frame_id"] for viewer in viewers} == {number}
        assert shown.views.encoder.made == 5


def test_without_viewers_nothing_is_made(shown: Shown) -> None:
    with viewing(shown.site, "sources=a") as viewer, publishing(shown.views.gallery, "a"):
        viewer.picture()
    until(lambda: not shown.views.gallery.viewers, "the viewer has left")
    made = shown.views.encoder.made
    with publishing(shown.views.gallery, "a", period_s=0.001) as published:
        until(lambda: published.number > 100, "published")
    assert shown.views.encoder.made <= made + 1, "but what was begun"
    assert shown.views.gallery.newest("a") is None


@pytest.mark.slow
def test_a_viewer_may_look_elsewhere_and_pause(shown: Shown) -> None:
    with publishing(shown.views.gallery, "a", "b"), viewing(shown.site, "sources=a") as viewer:
        assert viewer.picture().source == "a"
        viewer.say(sources=["b"], width=64)
        until(lambda: viewer.picture().source == "b", "b is seen")
        assert {viewer.picture().source for _ in range(10)} == {"b"}
        viewer.say(sources=[])
        with contextlib.suppress(TimeoutError):
            while True:
                viewer.next(0.5)
        assert not shown.views.gallery._lookers
        viewer.say(sources=["a", "b"], drawn=2)
        assert {viewer.picture().source for _ in range(10)} == {"a", "b"}


@pytest.mark.slow
def test_all_sources_are_those_that_come_later_too(shown: Shown) -> None:
    gallery = shown.views.gallery
    with viewing(shown.site) as everything, viewing(shown.site, "sources=a") as only_a:
        for viewer in (everything, only_a):
            viewer.until("status", source="b")
        gallery.write(status("b", "ended"), None)
        gallery.forget("b")
        gallery.write(info("a", "new"), None)
        assert everything.until("info", sources=["a", "new"])
        assert everything.connection.ping().wait(WAIT_S)
        until(lambda: gallery._lookers.keys() == {"a", "new"}, "the new one is looked at")
        with publishing(gallery, "a", "new"):
            assert {everything.picture().source for _ in range(10)} == {"a", "new"}
            assert {only_a.picture().source for _ in range(5)} == {"a"}


@pytest.mark.slow
def test_a_source_that_comes_again_is_seen_again(shown: Shown) -> None:
    """By whoever looked at it: its numbers begin anew."""
    with viewing(shown.site, "sources=a") as viewer:
        with publishing(shown.views.gallery, "a"):
            until(lambda: viewer.picture().header["frame_id"] > 20, "it runs")
        shown.views.gallery.write(status("a", "ended"), None)
        shown.views.gallery.forget("a")
        shown.views.gallery.write(info("b"), None)
        viewer.until("info", sources=["b"])
        with publishing(shown.views.gallery, "a", "b"):
            viewer.until("info", sources=["a", "b"])
            until(lambda: viewer.picture().header["frame_id"] > 5, "it runs again")


@pytest.mark.slow
def test_of_a_source_that_stalls_no_old_picture_is_sent_again(shown: Shown) -> None:
    with viewing(shown.site, "sources=a") as viewer:
        until(lambda: shown.views.gallery._lookers, "somebody looks")
        for number in range(CREDITS + 1):
            shown.publish("a", number)
            if number < CREDITS:
                viewer.until("detections", frame_id=number)
        shown.views.gallery.write(status("a", "stalled"), None)
        assert viewer.next().header["state"] == "stalled"
        viewer.drawn(CREDITS)
        with pytest.raises(TimeoutError):
            viewer.next(0.3)
        shown.views.gallery.write(status("a"), None)
        assert viewer.next().header["state"] == "running"
        shown.publish("a", 9)
        assert viewer.next().header["frame_id"] == 9


def test_one_viewer_too_many_is_told_so(shown: Shown) -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(viewing(shown.site)) for _ in range(MAX_VIEWERS)]
        for viewer in viewers:
            viewer.next()
        code, reason = closed(stack.enter_context(viewing(shown.site)))
        assert code == 4429
        assert f"{MAX_VIEWERS} viewers look already" in reason
        viewers[0].connection.close()
        until(lambda: shown.views.gallery.viewers < MAX_VIEWERS, "a place is free")
        stack.enter_context(viewing(shown.site)).next()
        assert ask(shown.site, "/healthz").status == 200


@pytest.mark.parametrize(("query", "code"), [("sources=a,nowhere", 4404), ("width=wide", 1008), ("width=-1", 1008)])
def test_what_can_not_be_looked_at(shown: Shown, query: str, code: int) -> None:
    with viewing(shown.site, query) as viewer:
        assert closed(viewer)[0] == code
    until(lambda: not shown.views.gallery.viewers, "nothing is left of it")


GARBAGE: list[tuple[Any, int]] = [
    ("no JSON", 1008),
    ("[]", 1008),
    ('{"drawn": -1}', 1008),
    ('{"drawn": "1"}', 1008),
    ('{"sources": "a"}', 1008),
    ('{"sources": ["a", 1]}', 1008),
    ('{"unknown": 1}', 1008),
    ('{"width": 1e99}', 1008),
    ("[" * 4000, 1008),
    (b"\x00\x01", 1008),
    ('{"sources": ["nowhere"]}', 4404),
    ('{"drawn": 0}' + " " * MAX_WS_MESSAGE_BYTES, 1009),
]


@pytest.mark.parametrize(("said", "code"), GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_and_messages_that_are_too_long(shown: Shown, said: Any, code: int) -> None:
    with viewing(shown.site) as other, viewing(shown.site) as viewer:
        viewer.connection.send(said)
        assert closed(viewer)[0] == code
        until(lambda: shown.views.gallery.viewers == 1, "nothing is left of it")
        with publishing(shown.views.gallery, "a"):
            assert other.picture().jpeg


def test_a_message_without_an_end_is_cut_short(shown: Shown) -> None:
    with viewing(shown.site) as viewer:
        with contextlib.suppress(ConnectionClosed):
            viewer.connection.send(b"x" * (8 << 20))
        assert closed(viewer)[0] in (1009, 1006), "what it said of the end may be lost with what was not read"


def test_who_never_stops_to_talk_is_sent_away(shown: Shown) -> None:
    with viewing(shown.site) as viewer:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(100_000):
                viewer.drawn()
        assert closed(viewer) == (1008, "you say more than there is to say")


@pytest.mark.slow
def test_who_does_not_draw_is_sent_away(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_module, "STOPPED_S", 0.2)
    monkeypatch.setattr(live, "LOOK_S", 0.05)
    with publishing(shown.views.gallery, "a", "b"), viewing(shown.site, "sources=a") as lazy:
        with viewing(shown.site, "sources=a") as viewer:
            for _ in range(50):
                viewer.picture()
                time.sleep(0.01)
        assert closed(lazy)[0] == 4408


def test_who_may_look_no_more_sees_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_S", 0.02)
    who = Everybody("viewer")
    with serving(shown := views(access=who)) as site, viewing(site) as viewer:
        with publishing(shown.gallery, "a"):
            viewer.picture()
            who.role = None
            assert closed(viewer)[0] == 4401
        with pytest.raises(InvalidStatus, match="401"), viewing(site):
            pass


def test_another_page_may_not_look(shown: Shown) -> None:
    with pytest.raises(InvalidStatus, match="403"), viewing(shown.site, origin="http://elsewhere.example"):
        pass


STOPPED_CLIENT = """
import socket, sys
from websockets.sync.client import connect
own = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
with connect(f"ws://127.0.0.1:{sys.argv[1]}/live", sock=own, max_size=None) as connection:
    connection.recv()
    print("looks", flush=True)
    while True:
        connection.recv()
        connection.send('{"drawn": 1}')
"""


@pytest.fixture
def stopped_client() -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """A viewer in a process, which looks until it is stopped."""
    started: list[subprocess.Popen[str]] = []

    def start(port: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", STOPPED_CLIENT, str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "looks\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_viewer_whose_process_is_stopped_costs_nobody_anything(
    shown: Shown, stopped_client: Callable[[int], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer_module, "STOPPED_S", 2.0)
    gallery = shown.views.gallery
    with publishing(gallery, "a"):
        process = stopped_client(shown.site.port)
        with viewing(shown.site, "sources=a") as other:
            other.picture()
            os.kill(process.pid, signal.SIGSTOP)
            for n in range(2000):  # statuses go without credits: so many fill every buffer on the way
                gallery.write(status("b", ("running", "stalled")[n % 2]), None)
            seen = [other.picture() for _ in range(100)]
            assert len({each.header["frame_id"] for each in seen}) == 100
            while gallery.viewers > 1:
                assert other.picture().jpeg


@pytest.mark.slow
def test_the_sites_end_waits_for_no_viewer(
    stopped_client: Callable[[int], subprocess.Popen[str]], caplog: pytest.LogCaptureFixture
) -> None:
    made = views()
    with serving(made) as site, publishing(made.gallery, "a"):
        process = stopped_client(site.port)
        os.kill(process.pid, signal.SIGSTOP)
        with viewing(site) as viewer:
            viewer.picture()
            site.stop()
            assert not site._thread.is_alive()
            assert closed(viewer)[0] in (1001, 1006, 1012)
    assert "Traceback" not in caplog.text
    assert made.gallery.viewers == 0
