"""The description of the API for programs: made of the very types that the answers are made of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_origin

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgeinfer import __version__
from edgeinfer.messages import SOURCE_PATTERN, InfoMessage
from edgeinfer.web.readiness import Health
from edgeinfer.web.site.shapes import CheckRequest, Error, Events, LoginRequest, ReloadRequest, Status
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.desk import CheckReport, ConfigView, Outcome
from edgeinfer.web.viewing.history import Columns
from edgeinfer.web.viewing.model import ModelView

PREFIX = "/api/v1"
REF = "#/components/schemas/{name}"
JPEG, MJPEG, SSE, TEXT, HTML = (
    "image/jpeg",
    "multipart/x-mixed-replace",
    "text/event-stream",
    "text/plain",
    "text/html",
)


@dataclass(frozen=True, slots=True)
class Operation:
    """A path and a method. `gives`: a type, a kind of content, or None for an empty answer."""

    method: str
    path: str
    says: str
    gives: Any
    takes: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()


_SINCE_NS = {"since": "only what was measured after this time of day, in nanoseconds"}
_SINCE_ID = {"since": "only what happened after the event with this id"}
_PICTURE = {"boxes": "1 draws what was found", "width": "of the picture, in pixels"}
_SOURCE = dict[str, Any]

OPERATIONS = (
    Operation("get", f"{PREFIX}/status", "The daemon and its sources as they are now.", Status),
    Operation("get", f"{PREFIX}/info", "The latched `info` message.", InfoMessage, refusals=(503,)),
    Operation("get", f"{PREFIX}/model", "The model that runs, its card and its engine.", ModelView),
    Operation("get", f"{PREFIX}/history", "Samples of the last ten minutes, one a second.", Columns, query=_SINCE_NS),
    Operation("get", f"{PREFIX}/events", "The last events.", Events, query=_SINCE_ID),
    Operation(
        "get", f"{PREFIX}/events/stream", "Events as they happen (SSE).", SSE, query=_SINCE_ID, refusals=(503,)
    ),
    Operation(
        "get",
        f"{PREFIX}/config",
        "The configuration, without its secrets.",
        ConfigView,
        query={"text": "1 gives an admin the file's text as it is"},
        refusals=(403,),
    ),
    Operation("post", f"{PREFIX}/config/check", "Checks a configuration.", CheckReport, CheckRequest, refusals=(413,)),
    Operation(
        "post", f"{PREFIX}/reload", "Reloads; an admin's.", Outcome, ReloadRequest,
        refusals=(403, 409, 413, 503, 504),
    ),
    Operation(
        "post", f"{PREFIX}/sources/{{name}}", "Adds or changes a source, by its keys and `keep`; an admin's.", Outcome,
        _SOURCE, refusals=(400, 403, 409, 413, 503, 504),
    ),
    Operation(
        "delete", f"{PREFIX}/sources/{{name}}", "Takes a source out; an admin's.", Outcome,
        refusals=(400, 403, 404, 409, 503, 504),
    ),
    Operation(
        "get", f"{PREFIX}/sources/{{name}}/snapshot.jpg", "The newest picture.", JPEG, query=_PICTURE,
        refusals=(404, 503),
    ),
    Operation(
        "get", f"{PREFIX}/sources/{{name}}/stream.mjpg", "Pictures without an end (MJPEG).", MJPEG,
        query={**_PICTURE, "fps": "at most so many a second"}, refusals=(404, 503),
    ),
    Operation("post", "/login", "Comes in with a token: sets a cookie.", None, LoginRequest, refusals=(429,)),
    Operation("post", "/logout", "Goes out.", None),
    Operation("get", "/healthz", "Whether the process can go on; 503 where not.", Health),
    Operation("get", "/readyz", "Whether it does what it is there for; 503 where not.", Health),
    Operation("get", "/metrics", "Numbers for Prometheus.", TEXT),
    Operation("get", "/openapi.json", "This description.", dict[str, Any]),
    Operation("get", "/", "The page.", HTML),
)  # fmt: skip


def routes(views: Views) -> list[BaseRoute]:
    """`/openapi.json`, made when it is first asked for."""
    made: list[bytes] = []

    async def described(request: Request) -> Response:
        if not made:
            made.append(msgspec.json.encode(description()))
        return Response(made[0], media_type="application/json")

    return [Route("/openapi.json", described, methods=["GET"])]


def description() -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = dict.fromkeys((Error, *(each for one in OPERATIONS for each in (one.gives, one.takes) if _is_shape(each))))
    schemas, components = msgspec.json.schema_components(list(types), ref_template=REF)
    named = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one, named)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgeinfer", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": _tidy(components),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "edgeinfer_session"},
            },
        },
        "security": [{}, {"bearer": []}, {"cookie": []}],
    }


def _is_shape(given: Any) -> bool:
    return isinstance(given, type) and get_origin(given) is None


def _operation(one: Operation, named: Mapping[Any, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": one.says, "responses": _responses(one, named)}
    parameters = [_parameter(name, says) for name, says in one.query.items()]
    if "{name}" in one.path:
        parameters.insert(0, _of_path())
    if parameters:
        made["parameters"] = parameters
    if one.takes is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": _schema(one.takes, named)}}}
    return made


def _responses(one: Operation, named: Mapping[Any, Any]) -> dict[str, Any]:
    if one.gives is None:
        found: dict[str, Any] = {"204": {"description": "done"}}
    elif isinstance(one.gives, str):
        found = {"200": {"description": one.says, "content": {one.gives: {}}}}
    else:
        content = {"application/json": {"schema": _schema(one.gives, named)}}
        found = {"200": {"description": one.says, "content": content}}
    error = {"description": "an error", "content": {"application/json": {"schema": named[Error]}}}
    return {**found, **{str(status): error for status in one.refusals}, "default": error}


def _schema(shape: Any, named: Mapping[Any, Any]) -> Any:
    return named.get(shape, {"type": "object"})


def _parameter(name: str, says: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": says, "schema": {"type": "string"}}


def _of_path() -> dict[str, Any]:
    pattern = SOURCE_PATTERN.removesuffix(r"(?!\n)")  # JSON Schema's `$` is the very end
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}


def _tidy(part: Any) -> Any:
    """Docstrings without their indentation."""
    if isinstance(part, dict):
        return {key: _tidy(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    return inspect.cleandoc(part) if isinstance(part, str) else part
