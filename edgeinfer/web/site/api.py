"""What programs ask for: the daemon's status, model, history, events and configuration, as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgeinfer.messages import SinkVitals, VideoDecoderInfo
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SourceSnapshot
from edgeinfer.web.site.answers import Refusal, answered, apart, json_response, number, require_admin, role_of
from edgeinfer.web.site.shapes import DaemonStatus, Events, HttpStatus, SourceStatus, Status
from edgeinfer.web.site.views import Role, Views
from edgeinfer.web.viewing.latched import SourceKind


def routes(views: Views) -> list[BaseRoute]:
    """The GETs; what changes something is in `admin`."""
    api = _Api(views)
    pages: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "status": api.status,
        "info": api.info,
        "model": api.model,
        "history": api.history,
        "events": api.events,
        "config": api.config,
    }
    return [Route(f"/api/v1/{name}", page, methods=["GET"]) for name, page in pages.items()]


class _Api:
    """An answer each."""

    def __init__(self, views: Views) -> None:
        self._views = views

    async def status(self, request: Request) -> Response:
        return json_response(status_of(self._views, role_of(request)))

    async def info(self, request: Request) -> Response:
        info = self._views.latched.info
        if info is None:
            raise Refusal(503, "starting", "the daemon is starting", headers={"Retry-After": "1"})
        return json_response(info)

    async def model(self, request: Request) -> Response:
        return json_response(await apart(self._views.model))

    async def history(self, request: Request) -> Response:
        return json_response(self._views.history.columns(_since(request)))

    async def events(self, request: Request) -> Response:
        return json_response(Events(events=self._views.chronicle.since(_since(request))))

    async def config(self, request: Request) -> Response:
        whole = request.query_params.get("text") == "1"
        if whole:
            require_admin(request)
        return await answered(lambda: self._views.config.view(whole))


def _since(request: Request) -> int:
    return number(request.query_params.get("since", "0"), "since")


def status_of(views: Views, role: Role) -> Status:
    """The daemon and its sources, as they are now."""
    seen, daemon = views.picture(), views.latched.daemon
    return Status(
        daemon=_daemon(seen, views),
        sources={name: _source(books, views.latched.kind(name)) for name, books in seen.sources.items()},
        session=views.session,
        t_ns=0 if daemon is None else daemon.t_publish_ns,
        last_crash=None if daemon is None or daemon.last_crash is UNSET else daemon.last_crash,
        role=role,
    )


def _daemon(seen: DaemonSnapshot, views: Views) -> DaemonStatus:
    daemon, total = views.latched.daemon, seen.total
    return DaemonStatus(
        state=total.state if daemon is None else daemon.state,
        reason=total.reason if daemon is None else daemon.reason,
        model=seen.model,
        backend=seen.backend,
        detail=seen.detail,
        engine_key=seen.engine_key,
        versions=dict(seen.versions),
        serving_s=seen.serving_s,
        rate=seen.rate,
        latency_ms={stage: dict(values) for stage, values in seen.latency_ms.items()},
        subscribers=seen.subscribers,
        machine=seen.machine,
        sinks={
            name: SinkVitals(ok=not one.trouble, lost=one.lost, text=one.trouble) for name, one in seen.sinks.items()
        },
        fps=round(total.fps, 2),
        captured=total.captured,
        inferred=total.inferred,
        dropped=sum(total.dropped.values()),
        dropped_by_reason=total.dropped,
        http=HttpStatus(viewers=views.gallery.viewers, pictures=views.encoder.made),
    )


def _source(books: SourceSnapshot, kind: SourceKind | None) -> SourceStatus:
    return SourceStatus(
        state=books.state,
        reason=books.reason,
        captured=books.captured,
        inferred=books.inferred,
        in_flight=books.in_flight,
        dropped=sum(books.dropped.values()),
        dropped_by_reason=books.dropped,
        fps=round(books.fps, 2),
        stalls=books.stalls,
        reconnects=books.reconnects,
        decoder=None if books.decoder is None else VideoDecoderInfo(name=books.decoder[0], why=books.decoder[1]),
        kind=kind,
    )
