"""What goes out: JSON, made by msgspec, and errors that say how to mend them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from edgeinfer.config.replacing import ChangedError
from edgeinfer.errors import ConfigError, EdgeinferError, TemporaryError
from edgeinfer.guard.limits import MAX_WEB_BODY_BYTES
from edgeinfer.guard.printable import printable
from edgeinfer.web.access.rights import Asked
from edgeinfer.web.site.views import Role
from edgeinfer.web.viewing.desk import BadNameError, BusyError, NoSuchSourceError, UnfinishedError

T = TypeVar("T")

APART_THREADS = 3
"""For what may block: files that are read, reloads that are waited for."""
_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

MAX_DIGITS = 20
STATUSES: tuple[tuple[type[EdgeinferError], int, str], ...] = (
    (NoSuchSourceError, 404, "unknown-source"),
    (BadNameError, 400, "bad-name"),
    (BusyError, 503, "busy"),
    (UnfinishedError, 504, "unfinished"),
    (ChangedError, 409, "changed"),
    (ConfigError, 409, "refused"),
    (TemporaryError, 503, "not-now"),
    (EdgeinferError, 409, "failed"),
)
"""What an error is told with; the first that fits."""

ADMIN_HINT = "edgeinfer web token new --admin --file FILE makes a token, and token: FILE under http asks for it"


class Refusal(Exception):  # noqa: N818 (an answer like any other)
    """Ends a request with an error."""

    def __init__(
        self, status: int, code: str, text: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.code, self.headers = status, code, dict(headers or {})
        self.text, self.hint = printable(text), printable(hint)

    def response(self) -> Response:
        """As it is sent."""
        error = {"code": self.code, "text": self.text, "hint": self.hint}
        return json_response({"error": error}, self.status, self.headers)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Anything that msgspec can write."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), "application/json")


def role_of(connection: HTTPConnection) -> Role:
    """Who asks, as the gate has found."""
    role: Role = connection.scope["edgeinfer.role"]
    return role


def asked_by(connection: HTTPConnection) -> Asked:
    """What there is to know of who asks."""
    found: Asked = connection.scope["edgeinfer.asked"]
    return found


def require_admin(connection: HTTPConnection) -> None:
    """Raises Refusal for whoever may only look."""
    if role_of(connection) != "admin":
        raise Refusal(403, "forbidden", "this needs an admin's token", ADMIN_HINT)


def number(text: str, name: str) -> int:
    """A parameter that counts. Raises Refusal where it doesn't."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise Refusal(400, "bad-request", f"{name}: {text[:40]!r} is not a number")
    return int(text)


async def body_of(request: Request, shape: type[T], limit: int = MAX_WEB_BODY_BYTES) -> T:
    """The JSON body. Raises Refusal where it is too large, or something else."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise Refusal(413, "too-large", f"a body may have {limit} bytes", headers={"Connection": "close"})
    try:
        return msgspec.json.decode(bytes(data), type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad-request", f"the body is not what is expected: {error}") from None


async def answered(call: Callable[[], Any]) -> Response:
    """What may block and may be refused, as JSON. Raises Refusal."""
    try:
        return json_response(await apart(call))
    except EdgeinferError as error:
        status, code = next((status, code) for kind, status, code in STATUSES if isinstance(error, kind))
        headers = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        raise Refusal(status, code, error.message, error.hint, headers) from None


async def apart(call: Callable[[], T]) -> T:
    """The result of what may block, from a thread of its own, APART_THREADS at a time. No exit waits for it."""
    loop = asyncio.get_running_loop()
    async with _places.setdefault(loop, asyncio.Semaphore(APART_THREADS)):
        done: asyncio.Future[T] = loop.create_future()
        threading.Thread(target=_work, args=(call, loop, done), name="http-apart", daemon=True).start()
        return await done


def _work(call: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
    try:
        result = call()
    except Exception as error:
        _tell(loop, done, partial(done.set_exception, error))
    else:
        _tell(loop, done, partial(done.set_result, result))


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], say: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the site has ended meanwhile
        loop.call_soon_threadsafe(lambda: None if done.done() else say())
