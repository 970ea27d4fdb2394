"""Events as they happen: Server-Sent Events, for the page and for whoever waits for something."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from edgeinfer.guard.limits import MAX_EVENT_STREAMS
from edgeinfer.web.site.answers import Refusal, number
from edgeinfer.web.site.door import stays
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.chronicle import Chronicle, Event

SILENCE_S = 10.0
"""A comment so often tells both sides that the other is there."""


def routes(views: Views) -> list[BaseRoute]:
    """`/api/v1/events/stream`; `api` has what happened before."""
    return [Route("/api/v1/events/stream", _Streams(views.chronicle).stream, methods=["GET"])]


class _Streams:
    """So many at a time."""

    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle, self._count = chronicle, 0

    async def stream(self, request: Request) -> Response:
        last_id = number(request.headers.get("last-event-id") or request.query_params.get("since", "0"), "since")
        if self._count >= MAX_EVENT_STREAMS:
            raise Refusal(
                503,
                "too-many",
                f"{MAX_EVENT_STREAMS} listen to events already",
                "GET /api/v1/events tells them too",
                {"Retry-After": "10"},
            )
        stays(request.scope)
        self._count += 1
        return _Stream(_parts(self._chronicle, last_id), self._left)

    def _left(self) -> None:
        self._count -= 1


class _Stream(StreamingResponse):
    """One that tells when it is over."""

    def __init__(self, parts: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        super().__init__(parts, media_type="text/event-stream")
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


async def _parts(chronicle: Chronicle, last_id: int) -> AsyncIterator[bytes]:
    """What has happened since, then what happens; without an end."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    stop = chronicle.listen(lambda: _wake(loop, news))
    try:
        yield b"retry: 2000\n\n"
        while True:
            news.clear()
            for event in chronicle.since(last_id):
                last_id = event.id
                yield _written(event)
            try:
                await asyncio.wait_for(news.wait(), SILENCE_S)
            except asyncio.TimeoutError:
                yield b": still here\n\n"
    finally:
        stop()


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    """On the publisher's thread, which never waits."""
    with contextlib.suppress(RuntimeError):  # the site has ended
        loop.call_soon_threadsafe(news.set)


def _written(event: Event) -> bytes:
    """JSON has no line feeds, so that `data` is one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), msgspec.json.encode(event))
