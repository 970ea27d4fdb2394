"""Every request comes through here first: right host, right origin, right kind, somebody who may; and what every answer
carries."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from edgeinfer.web.request import is_local_name
from edgeinfer.web.site.answers import Refusal
from edgeinfer.web.site.views import Views

log = logging.getLogger(__name__)

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/login", "/logout"})
OPEN_FOLDER = "/static/"
"""What needs no rights: the page itself, which shows nothing without them, and the health of the process."""
TAKING_BODIES = ("/api/", "/login", "/logout")
CLOSE_CODES = {401: 4401, 403: 4403, 421: 4403}


class Gate:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, views: Views) -> None:
        self._app, self._views = app, views

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check(scope, self._views)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:  # the application has answered with a 500, if it still could
            log.exception("http: %s failed", scope["path"])

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check(scope, self._views)
        except Refusal as refusal:
            await close_with(WebSocket(scope, receive, send), CLOSE_CODES.get(refusal.status, 1008), refusal.text)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:
            log.exception("http: %s failed", scope["path"])
            with contextlib.suppress(Exception):  # it may have gone
                await send({"type": "websocket.close", "code": 1011, "reason": "this failed; the log says why"})


async def close_with(socket: WebSocket, code: int, reason: str) -> None:
    """Ends a WebSocket that has not been accepted yet, so that a page can read why."""
    with contextlib.suppress(Exception):  # it may have gone
        await socket.accept()
        await socket.close(code, reason.encode()[:123].decode("utf-8", "ignore"))


def check(scope: Scope, views: Views) -> None:
    """Raises Refusal; otherwise `scope` says who it is."""
    connection = HTTPConnection(scope)
    headers = connection.headers
    _check_host(headers, views)
    _check_origin(headers, views)
    _check_kind(scope, headers)
    peer = scope["client"]
    scope["edgeinfer.role"] = role = views.rights(_plain(headers), "" if peer is None else peer[0])
    if role is None and not is_open(scope["path"]):
        raise Refusal(
            401,
            "unauthorized",
            "this needs a token",
            "log in, or send Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )


def is_open(path: str) -> bool:
    """Whether a path needs no rights."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _check_host(headers: Headers, views: Views) -> None:
    """A web page may have its own name point to this machine; then its Host is that name."""
    if views.local_only and not is_local_name(headers.get("host", "")):
        raise Refusal(421, "misdirected", "this is not the host that was asked for", "use the address that was printed")


def _check_origin(headers: Headers, views: Views) -> None:
    origin = headers.get("origin")
    if origin is not None and origin != f"{'https' if views.secure else 'http'}://{headers.get('host', '')}":
        raise Refusal(403, "foreign-origin", "another page may not ask here")


def _check_kind(scope: Scope, headers: Headers) -> None:
    """A form of another page can send no JSON without the browser asking us first."""
    if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(TAKING_BODIES):
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "wrong-type", "a body must be JSON", "send Content-Type: application/json")


def _plain(headers: Headers) -> dict[str, str]:
    return dict(headers.items())


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _always(headers):
                headers[name] = value
        await send(message)

    return wrapped


def _always(headers: MutableHeaders) -> Iterator[tuple[str, str]]:
    yield from HEADERS.items()
    if "cache-control" not in headers:
        yield "Cache-Control", "no-store"
