"""What goes out: JSON, made by msgspec, and errors that say how to mend them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from edgeinfer.guard.limits import MAX_WEB_BODY_BYTES
from edgeinfer.guard.printable import printable
from edgeinfer.web.site.views import Role

T = TypeVar("T")

ADMIN_HINT = "edgeinfer web token new FILE --admin makes a token, and token: FILE under http asks for it"


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


def require_admin(connection: HTTPConnection) -> None:
    """Raises Refusal for whoever may only look."""
    if role_of(connection) != "admin":
        raise Refusal(403, "forbidden", "this needs an admin's token", ADMIN_HINT)


async def body_of(request: Request, shape: type[T]) -> T:
    """The JSON body. Raises Refusal where it is too large, or something else."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_WEB_BODY_BYTES:
            raise Refusal(
                413, "too-large", f"a body may have {MAX_WEB_BODY_BYTES} bytes", headers={"Connection": "close"}
            )
    try:
        return msgspec.json.decode(bytes(data), type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad-request", f"the body is not what is expected: {error}") from None


async def apart(call: Callable[[], T]) -> T:
    """The result of what may block, from one of the few threads for that."""
    return await asyncio.get_running_loop().run_in_executor(None, call)
