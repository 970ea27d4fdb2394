"""Coming in and going out with a token."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgeinfer.guard.limits import MAX_LOGIN_BYTES
from edgeinfer.web.access import rights
from edgeinfer.web.access.rights import Access
from edgeinfer.web.site.answers import Refusal, asked_by, body_of, json_response
from edgeinfer.web.site.views import Views


class Form(msgspec.Struct, frozen=True):
    """What is sent to log in; a token in the address is none, since addresses are written down everywhere."""

    token: str


def routes(views: Views) -> list[BaseRoute]:
    """Where that is served."""
    door = _Door(views.access)
    return [Route("/login", door.login, methods=["POST"]), Route("/logout", door.logout, methods=["POST"])]


class _Door:
    def __init__(self, access: Access) -> None:
        self._access = access

    async def login(self, request: Request) -> Response:
        """Takes a token and gives a cookie."""
        form = await body_of(request, Form, MAX_LOGIN_BYTES)
        found = self._access.login(asked_by(request), form.token)
        if isinstance(found, rights.Refusal):
            raise Refusal(found.status, found.code, found.text, found.hint, found.headers)
        return json_response({"ok": True, "role": found.grant.role}, headers={"Set-Cookie": found.cookie})

    async def logout(self, request: Request) -> Response:
        """Ends the session and takes the cookie."""
        return json_response({"ok": True}, headers={"Set-Cookie": self._access.logout(asked_by(request))})
