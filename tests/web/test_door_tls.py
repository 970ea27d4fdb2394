"""The same under TLS, where a handshake comes first."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from edgeinfer.guard.limits import MAX_HTTP_PEERS
from edgeinfer.web.site import door
from edgeinfer.web.site.server import Site
from tests.test_access_tls import GOOD, KEY, put
from tests.web.serving import serving
from tests.web.test_door import GET

HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(100)
"""The beginning of a handshake that has no end."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    put(tmp_path / "cert.pem", GOOD)
    put(tmp_path / "key.pem", KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(tls=context) as made:
        yield made


def connect(site: Site, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=20))


def answers(site: Site) -> bool:
    context = ssl.create_default_context(cadata=GOOD)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    with ExitStack() as stack:
        peer = stack.enter_context(context.wrap_socket(connect(site, stack)))
        peer.sendall(GET)
        return peer.recv(12) == b"HTTP/1.1 200"


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", HELLO, GET, b"\0" * 300])
def test_handshakes_that_have_no_end_keep_nobody_from_an_answer(site: Site, start: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(3 * MAX_HTTP_PEERS):
            with suppress(ConnectionResetError, BrokenPipeError):
                connect(site, stack).sendall(start)
        for _ in range(5):
            assert answers(site)


@pytest.mark.slow
def test_a_handshake_that_has_no_end_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "DEADLINE_S", 0.3)
    with ExitStack() as stack:
        for start in (b"", HELLO):
            peer = connect(site, stack)
            peer.sendall(start)
            with suppress(ConnectionResetError):
                assert peer.recv(1) == b""


@pytest.mark.slow
def test_who_shook_hands_and_says_nothing_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    monkeypatch.setattr(door, "DEADLINE_S", 0.3)
    with ExitStack() as stack:
        peer = stack.enter_context(context.wrap_socket(connect(site, stack)))
        with suppress(ConnectionResetError, ssl.SSLEOFError):
            assert peer.recv(1) == b""


def test_it_ends_at_once_in_the_middle_of_handshakes(site: Site) -> None:
    with ExitStack() as stack:
        peers = [connect(site, stack) for _ in range(10)]
        for peer in peers[:5]:
            peer.sendall(HELLO)
        assert answers(site)
        site.stop()
        assert not site._thread.is_alive()
        for peer in peers:
            with suppress(ConnectionResetError):
                assert peer.recv(1) == b""
