"""Peers that do not behave cost nobody anything."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from starlette.types import Receive, Scope, Send

from edgeinfer.errors import ConfigError, TemporaryError
from edgeinfer.web.request import Answer
from edgeinfer.web.site import door
from edgeinfer.web.site.door import Door, Guest, stays
from edgeinfer.web.site.server import Site
from tests.starving import without_descriptors
from tests.web.serving import ask, serving, views

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as made:
        yield made


def connect(site: Site, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=20))


def raw(site: Site, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as peer:
        answer = b""
        with suppress(OSError):  # it was cut, which is an answer too
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while block := peer.recv(4096):
                answer += block
        return answer


def answers(site: Site) -> bool:
    return ask(site, "/healthz").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: y\r\n"])
def test_three_hundred_slow_peers_keep_nobody_from_an_answer(site: Site, start: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            connect(site, stack).sendall(start)
        for _ in range(20):
            assert answers(site)


def test_the_oldest_of_the_idle_gives_way(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_HTTP_PEERS", 3)
    with ExitStack() as stack:
        peers = [connect(site, stack) for _ in range(5)]
        assert [peer.recv(10) for peer in peers[:2]] == [b"", b""]
        for peer in peers[2:]:
            peer.sendall(GET)
            assert peer.recv(12) == b"HTTP/1.1 200"


@pytest.mark.slow
def test_slow_peers_are_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that send a byte now and then, as long as they like, and those that send nothing."""
    monkeypatch.setattr(door, "DEADLINE_S", 0.5)
    with ExitStack() as stack:
        slow = [connect(site, stack) for _ in range(9)]
        dripping = set(slow[:5])
        while dripping:
            assert answers(site)
            for peer in list(dripping):
                try:
                    peer.send(b"x")
                except OSError:
                    dripping.discard(peer)
        for peer in slow[5:]:
            with suppress(ConnectionResetError):
                assert peer.recv(10) == b""


@pytest.mark.slow
def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "DEADLINE_S", 0.3)
    with serving() as site, ExitStack() as stack:
        peer = connect(site, stack)
        peer.sendall(
            b"POST /api/v1/config/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        received = b""
        with suppress(ConnectionResetError):
            while block := peer.recv(4096):
                received += block
        assert answers(site)


@pytest.mark.slow
def test_an_answer_may_take_longer_than_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "DEADLINE_S", 0.1)

    def slow() -> dict[str, int]:
        time.sleep(0.5)
        return {"x": 1}

    with serving(views(model=slow)) as site:
        assert ask(site, "/api/v1/model").json == {"x": 1}


def test_peers_that_do_not_read_their_answer_keep_nobody_from_one() -> None:
    with_large = {**views().pages, "/large": lambda _: Answer(200, bytes(8 << 20))}
    with serving(views(pages=with_large)) as site, ExitStack() as stack:
        for _ in range(3):
            connect(site, stack).sendall(GET.replace(b"/healthz", b"/large"))
            assert answers(site)


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ".ljust(64 << 10, b"y"), b"HTTP/1.1 4"),
        (b"GET /".ljust(64 << 10, b"y"), b"HTTP/1.1 4"),
        (b"\0" * 3000 + b"\r\n\r\n", b"HTTP/1.1 400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"z" * 300 + b"\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET\r\n\r\n", b"HTTP/1.1 400"),
        (GET.replace(b"\r\n\r\n", b"\r\nContent-Length: x\r\n\r\n"), b"HTTP/1.1 400"),
        (GET.replace(b"GET", b"BREW"), b"HTTP/1.1 405"),
    ],
)
def test_requests_that_are_too_much_or_none(site: Site, data: bytes, begins: bytes) -> None:
    answer = raw(site, data)
    assert answer == b"" or answer.startswith(begins)
    assert b"yyyy" not in answer
    assert answers(site)


def test_several_requests_at_once_get_one_answer(site: Site) -> None:
    """As there are others who wait."""
    assert raw(site, GET * 20).count(b"HTTP/1.1 200") == 1


def test_requests_in_a_row_are_answered_in_a_row(site: Site) -> None:
    with ExitStack() as stack:
        peer = connect(site, stack)
        for _ in range(5):
            peer.sendall(GET)
            answer = b""
            while not answer.endswith(b'"reasons":[]}\n'):
                answer += peer.recv(4096)
            assert answer.count(b"HTTP/1.1 200") == 1


def test_who_leaves_before_his_request_is_there_is_no_news(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        with ExitStack() as stack:
            connect(site, stack).sendall(
                b"POST /api/v1/config/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
    assert answers(site)
    site.stop()
    assert not caplog.records


def test_a_request_may_come_in_pieces(site: Site) -> None:
    with ExitStack() as stack:
        peer = connect(site, stack)
        for byte in GET:
            peer.sendall(bytes([byte]))
        assert peer.recv(12) == b"HTTP/1.1 200"


@pytest.mark.slow
def test_without_descriptors_it_answers_all_the_same(site: Site) -> None:
    """The one that is kept for that is enough for one peer at a time."""
    assert answers(site)
    answered = 0
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.socket()) for _ in range(3)]
        stack.enter_context(without_descriptors())
        for peer in peers:
            peer.settimeout(20)
            peer.connect(("127.0.0.1", site.port))
            peer.sendall(GET)
            assert peer.recv(12) == b"HTTP/1.1 200"
            answered += 1
    assert answered == 3
    assert answers(site)


@pytest.mark.slow
def test_where_not_even_one_descriptor_is_left_it_rests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def accept(_: socket.socket) -> None:
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    rested = threading.Event()
    real = Door._rest

    def rest(self: Door) -> None:
        real(self)
        rested.set()

    monkeypatch.setattr(Door, "_rest", rest)
    with monkeypatch.context() as patched, socket.socket() as peer:
        patched.setattr(socket.socket, "accept", accept)
        peer.connect(("127.0.0.1", site.port))
        assert rested.wait(20)
        assert len(tries) <= 2, "with the spare one, and without"
    assert answers(site), "it goes on where there are some again"


def test_a_port_that_is_taken_and_an_address_of_nobody(site: Site) -> None:
    with pytest.raises(TemporaryError, match="in use"):
        Site("127.0.0.1", site.port, views())
    with pytest.raises(ConfigError, match=r"http\.bind"):
        Site("192.0.2.1", 0, views())


def test_it_ends_at_once_whoever_is_there(site: Site) -> None:
    with ExitStack() as stack:
        peers = [connect(site, stack) for _ in range(20)]
        peers[0].sendall(GET)
        peers[1].sendall(GET[:9])
        assert answers(site)
        site.stop()
        assert not site._thread.is_alive()
        for peer in peers[1:]:
            with suppress(ConnectionResetError):
                assert peer.recv(10) == b""


def test_it_ends_while_somebody_waits_for_what_hangs() -> None:
    hangs, called = threading.Event(), threading.Event()

    def model() -> dict[str, int]:
        called.set()
        hangs.wait(60)
        return {}

    with serving(views(model=model)) as site, ExitStack() as stack:
        connect(site, stack).sendall(GET.replace(b"/healthz", b"/api/v1/model"))
        assert called.wait(20)
        site.stop()
        assert not site._thread.is_alive()
    hangs.set()


def test_one_that_was_never_started_ends() -> None:
    made = Site("127.0.0.1", 0, views())
    made.stop()
    Site("127.0.0.1", made.port, views()).stop()


def test_who_leaves_in_the_middle_harms_nobody(site: Site) -> None:
    for data in (b"", GET[:20], GET):
        for _ in range(30):
            with ExitStack() as stack:
                peer = connect(site, stack)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a reset
                peer.sendall(data)
    assert answers(site)


def test_a_connection_lasts_as_long_as_its_answer_and_no_longer() -> None:
    """What is left then is a farewell, and a peer that does not take it gives way to others."""
    guest, seen = Guest(None), list[bool]()  # type: ignore[arg-type] # (never asked)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        stays(scope)
        seen.append(guest.lasting)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(door._known(app, guest, {}, None, None))  # type: ignore[arg-type] # (never called)
    assert (seen, guest.lasting) == ([True], False)
