"""Every request comes through here first: right host, right origin, right kind, somebody who may; and what every answer
carries."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from edgeinfer.web.access import rights
from edgeinfer.web.access.rights import Access, Asked, Grant
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
CLOSE_CODES = {401: 4401, 403: 4403, 421: 4403}
ENDED = (4401, "the token or the session with which this was opened has ended")


class Gate:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, views: Views) -> None:
        self._app, self._access = app, views.access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            return
        who, send = asked(scope), _with_headers(send)
        found = self._access.grant(who)
        if isinstance(found, rights.Refusal):
            await _refuse(found, scope, receive, send)
            return
        scope.update({"edgeinfer.asked": who, "edgeinfer.grant": found, "edgeinfer.role": found.role})
        leash = _Leash(self._access, found, send)
        try:
            await self._app(scope, receive, leash.send)
        except ClientDisconnect:  # in the middle of its request
            pass
        except Exception:  # the application has answered with a 500, if it still could
            if not leash.is_cut:
                log.exception("http: %s failed", scope["path"])
                await _give_up(scope, send)


class _Leash:
    """Sends for as long as the grant holds: a token that is revoked, or a logout, ends what is open."""

    def __init__(self, access: Access, grant: Grant, send: Send) -> None:
        self._access, self._grant, self._send = access, grant, send
        self.is_cut = False

    async def send(self, message: Message) -> None:
        """See ASGI. An answer in one piece was asked for with rights, and is not cut."""
        goes_on = message["type"] == "websocket.send" or message.get("more_body")
        if goes_on and not self._access.still(self._grant):
            self.is_cut = True
            await self._send(_end_of(message))
            raise OSError("no rights any more")  # as if the peer had gone, which all who send know
        await self._send(message)


def _end_of(message: Message) -> Message:
    if message["type"] == "websocket.send":
        return {"type": "websocket.close", "code": ENDED[0], "reason": ENDED[1]}
    return {"type": "http.response.body", "body": b"", "more_body": False}


def asked(scope: Scope) -> Asked:
    """What there is to know of who asks. Several headers of one name are one, as HTTP has it."""
    names: dict[str, list[str]] = {}
    for name, value in Headers(scope=scope).items():
        names.setdefault(name, []).append(value)
    headers = {name: ("; " if name == "cookie" else ", ").join(values) for name, values in names.items()}
    peer = scope["client"]
    address = "" if peer is None else str(peer[0])
    return Asked(scope.get("method", "GET"), scope["path"], address, headers, scope["type"] == "websocket")


async def _refuse(why: rights.Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket is refused before it is one: who asks gets an answer over HTTP, as for anything else."""
    answer = Refusal(why.status, why.code, why.text, why.hint, why.headers).response()
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await WebSocket(scope, receive, send).close(why.close, why.text)


async def _give_up(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        with contextlib.suppress(Exception):  # it may have gone
            await send({"type": "websocket.close", "code": 1011, "reason": "this failed; the log says why"})


def check(scope: Scope, views: Views) -> None:
    """Whether who was let in still may, for those who give something that goes on. Raises Refusal."""
    if not views.access.still(scope["edgeinfer.grant"]):
        raise Refusal(401, "unauthorized", ENDED[1])


async def close_with(socket: WebSocket, code: int, reason: str) -> None:
    """Ends a WebSocket that has not been accepted yet, so that a page can read why."""
    with contextlib.suppress(Exception):  # it may have gone
        await socket.accept()
        await socket.close(code, reason.encode()[:123].decode("utf-8", "ignore"))


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            for name, value in _always(headers):
                headers[name] = value
        await send(message)

    return wrapped


def _always(headers: MutableHeaders) -> Iterator[tuple[str, str]]:
    yield from HEADERS.items()
    if "cache-control" not in headers:
        yield "Cache-Control", "no-store"
