"""What changes the configuration: check, reload, sources."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgeinfer.web.site.answers import Refusal, answered, body_of, require_admin, role_of
from edgeinfer.web.site.shapes import CheckRequest, ReloadRequest
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.desk import Keep


def routes(views: Views) -> list[BaseRoute]:
    """Where that is served."""
    admin = _Admin(views)
    return [
        Route("/api/v1/config/check", admin.check, methods=["POST"]),
        Route("/api/v1/reload", admin.reload, methods=["POST"]),
        Route("/api/v1/sources/{name}", admin.set_source, methods=["POST"]),
        Route("/api/v1/sources/{name}", admin.remove_source, methods=["DELETE"]),
    ]


class _Admin:
    """An answer each."""

    def __init__(self, views: Views) -> None:
        self._desk = views.config

    async def check(self, request: Request) -> Response:
        """For whoever may look; what it may look at itself depends on who that is."""
        body, trusted = await body_of(request, CheckRequest), role_of(request) == "admin"
        return await answered(lambda: self._desk.check(body.text, trusted))

    async def reload(self, request: Request) -> Response:
        require_admin(request)
        body = await body_of(request, ReloadRequest)
        return await answered(lambda: self._desk.reload(body.text, body.digest))

    async def set_source(self, request: Request) -> Response:
        require_admin(request)
        table, name = await body_of(request, dict[str, Any]), request.path_params["name"]
        keep = _keep(table.pop("keep", "restart"))
        return await answered(lambda: self._desk.set_source(name, table, keep))

    async def remove_source(self, request: Request) -> Response:
        require_admin(request)
        name = request.path_params["name"]
        return await answered(lambda: self._desk.remove_source(name))


def _keep(value: object) -> Keep:
    if value == "restart":
        return "restart"
    if value == "file":
        return "file"
    raise Refusal(400, "bad-request", "keep: expected restart or file")
