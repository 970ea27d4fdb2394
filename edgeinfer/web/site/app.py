"""The application: every path, and what answers there."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from edgeinfer.web.request import Answer
from edgeinfer.web.site import admin, api, events, live, login, openapi, pictures
from edgeinfer.web.site.answers import Refusal
from edgeinfer.web.site.files import StaticFolder
from edgeinfer.web.site.gate import Gate
from edgeinfer.web.site.views import Views

__all__ = ["Views", "application"]

STATIC = Path(__file__).parent.parent / "static"


def application(views: Views) -> ASGIApp:
    """The site of one daemon."""
    folder = StaticFolder(STATIC)
    routes: list[BaseRoute] = [_page(path, views) for path in views.pages]
    for module in (api, events, live, pictures, admin, login, openapi):
        routes += module.routes(views)
    routes += folder.routes()
    app = Starlette(
        routes=routes,
        exception_handlers={Refusal: _refused, HTTPException: _http_error, Exception: _unexpected},
    )
    return Gate(app, views)


def _page(path: str, views: Views) -> Route:
    """What the small server answers there too."""
    make = views.pages[path]

    async def page(request: Request) -> Response:
        answer: Answer = make(request.headers.get("accept", ""))
        return Response(answer.body, answer.status, {"Content-Type": answer.content_type})

    return Route(path, page, methods=["GET"])


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 (so it was registered)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: an unknown path, a method that a path does not know."""
    assert isinstance(error, HTTPException)  # noqa: S101 (so it was registered)
    codes = {404: "not-found", 405: "wrong-method"}
    texts = {404: "there is nothing here", 405: "this path does not take that method"}
    code, text = codes.get(error.status_code, "error"), texts.get(error.status_code, str(error.detail))
    return Refusal(error.status_code, code, text, "openapi.json lists the paths", error.headers).response()


async def _unexpected(request: Request, error: Exception) -> Response:
    """The gate tells the log."""
    return Refusal(500, "internal", "this failed; the daemon's log says why").response()
