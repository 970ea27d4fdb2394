"""The same rules over real HTTP, WebSockets and TLS."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from edgeinfer.guard.limits import LOGIN_TRIES, MAX_LOGIN_BYTES
from edgeinfer.web.access import tokens
from edgeinfer.web.access.rights import Access, open_access
from edgeinfer.web.site import app, login, server
from edgeinfer.web.site.gate import Gate
from edgeinfer.web.site.server import Site
from edgeinfer.web.site.views import Views
from tests.web.serving import views

STATUS = "/api/v1/status"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


@dataclass(frozen=True)
class Served:
    """A site whose admin's token is known."""

    site: Site
    access: Access
    path: Path
    admin: str
    viewer: str

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "POST":
            named = {"Content-Type": "application/json", **named}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def websocket(self, **headers: str) -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.site.port}/echo", additional_headers=headers, open_timeout=20)

    def revoke(self, name: str) -> None:
        tokens.revoke(self.path, name)
        assert self.access._tokens is not None
        self.access._tokens.refresh()


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def endless(request: Request) -> Response:
    async def numbers() -> Any:
        for number in range(1_000_000):
            yield f"{number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(numbers())


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The door and what is behind it, of which a stream and a WebSocket are made for these tests."""
    path = folder / "t"
    admin, viewer = (tokens.add(path, role)[1] for role in ("admin", "viewer"))
    access = open_access(True, str(path), None)

    def application(shown: Views) -> Any:
        real = app.application(shown)
        made: list[BaseRoute] = [WebSocketRoute("/echo", echo), Route("/endless", endless), *login.routes(shown)]
        assert isinstance(real, Gate)
        assert isinstance(real._app, Starlette)
        real._app.router.routes[:0] = made
        return real

    monkeypatch.setattr(server, "application", application)
    site = Site("127.0.0.1", 0, views(access=access))
    site.start()
    try:
        yield Served(site, access, path, admin, viewer)
    finally:
        site.stop()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(tmp_path, monkeypatch) as made:
        yield made


def test_in_with_a_token_and_out_again(served: Served) -> None:
    refused = served.ask("GET", STATUS)
    assert (refused.status, refused.code, refused.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    found = served.ask("POST", "/login", {"token": served.viewer})
    assert (found.status, json.loads(found.body)) == (200, {"ok": True, "role": "viewer"})
    cookie = found.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith(f"edgeinfer_session_{served.site.port}=")
    status = served.ask("GET", STATUS, Cookie=cookie)
    assert (status.status, json.loads(status.body)["role"]) == (200, "viewer")
    assert served.ask("POST", "/api/v1/reload", {}, Cookie=cookie).code == "forbidden"
    gone = served.ask("POST", "/logout", {}, Cookie=cookie)
    assert (gone.status, "Max-Age=0" in gone.headers["set-cookie"]) == (200, True)
    assert served.ask("GET", STATUS, Cookie=cookie).status == 401


def test_wrong_tokens_are_refused_and_then_not_looked_at(served: Served) -> None:
    for _ in range(LOGIN_TRIES):
        assert served.ask("POST", "/login", {"token": tokens.mint()}).code == "wrong-token"
    found = served.ask("POST", "/login", {"token": served.viewer})
    assert (found.status, found.code, found.headers["retry-after"]) == (429, "too-many-tries", "60")
    assert served.ask("GET", STATUS, Authorization=f"Bearer {served.viewer}").status == 200


def test_an_address_that_a_proxy_is_said_to_have_seen_counts_for_nothing(served: Served) -> None:
    statuses = [
        served.ask("POST", "/login", {"token": "x"}, X_Forwarded_For=f"10.0.0.{n}", Forwarded=f"for=10.0.0.{n}").status
        for n in range(LOGIN_TRIES + 1)
    ]
    assert statuses == [401] * LOGIN_TRIES + [429]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": 1}', b'{"token": null}', b"[]", b"\xff", b'{"token":"x"'])
def test_a_login_that_is_none(served: Served, body: bytes) -> None:
    assert served.ask("POST", "/login", body).status == 400


def test_a_login_that_is_too_long(served: Served) -> None:
    assert served.ask("POST", "/login", b" " * (MAX_LOGIN_BYTES + 1)).status == 413
    assert served.ask("POST", "/login", {"token": "x" * (MAX_LOGIN_BYTES - 100)}).status == 401


def test_a_page_of_somebody_else_logs_nobody_in(served: Served) -> None:
    body = {"token": served.viewer}
    origin = f"http://127.0.0.1:{served.site.port}"
    assert served.ask("POST", "/login", body, Origin="http://evil.example").code == "foreign-origin"
    assert served.ask("POST", "/login", body, Host="evil.example").status == 421
    assert served.ask("POST", "/login", body, Content_Type="text/plain").status == 415
    assert served.ask("POST", "/login", body, Sec_Fetch_Site="cross-site").code == "foreign-origin"
    assert served.ask("POST", "/login", body, Origin=origin).status == 200
    assert served.ask("GET", "/login").status == 405


def test_two_hosts_in_one_request_are_none_of_ours(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.site.port), timeout=20) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert peer.recv(9 + 3)[9:] in (b"400", b"421")


@pytest.mark.parametrize("path", ["/static/../api/v1/status", "/static/%2e%2e/api/v1/status", "//healthz", "/%2f"])
def test_no_way_around_the_rules_by_a_path(served: Served, path: str) -> None:
    assert served.ask("GET", path).status in (401, 404)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthorized"),
        ({"Authorization": "Bearer x"}, 401, "wrong-token"),
        ({"Authorization": "Bearer {viewer}", "Origin": "http://evil.example"}, 403, "foreign-origin"),
        ({"Authorization": "Bearer {viewer}", "Origin": "null"}, 403, "foreign-origin"),
    ],
)
def test_a_websocket_is_refused_before_it_is_one(
    served: Served, headers: dict[str, str], status: int, code: str
) -> None:
    given = {name: value.format(viewer=served.viewer) for name, value in headers.items()}
    with pytest.raises(InvalidStatus) as refused, served.websocket(**given):
        pass
    answer = refused.value.response
    assert (answer.status_code, json.loads(answer.body or b"")["error"]["code"]) == (status, code)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_websocket_ends_with_its_token_or_session(served: Served) -> None:
    cookie = served.ask("POST", "/login", {"token": served.admin}).headers["set-cookie"].partition(";")[0]
    origin = f"http://127.0.0.1:{served.site.port}"
    with (
        served.websocket(Authorization=f"Bearer {served.viewer}") as one,
        served.websocket(Cookie=cookie, Origin=origin) as other,
    ):
        for each in (one, other):
            each.send("x")
            assert each.recv(20) == "x"
        served.revoke("viewer")
        served.ask("POST", "/logout", {}, Cookie=cookie)
        for each in (one, other):
            each.send("y")
            with pytest.raises(ConnectionClosed) as closed:
                each.recv(20)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, "ended" in closed.value.rcvd.reason) == (4401, True)


def test_a_stream_ends_with_its_token(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.site.port, timeout=20)
    connection.request("GET", "/endless", headers={"Authorization": f"Bearer {served.viewer}"})
    answer = connection.getresponse()
    assert answer.read(4) == b"0\n1\n"
    served.revoke("viewer")
    rest = answer.read()
    assert rest.count(b"\n") < 10_000
    connection.close()
    assert caplog.text == ""
