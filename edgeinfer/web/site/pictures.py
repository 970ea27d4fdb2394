"""Single pictures and MJPEG, for other programs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from edgeinfer.guard.limits import MAX_MJPEG_STREAMS, MAX_SNAPSHOTS
from edgeinfer.messages import DetectionsMessage
from edgeinfer.web.site.answers import Refusal
from edgeinfer.web.site.door import stays
from edgeinfer.web.site.gate import check
from edgeinfer.web.site.glance import Glance
from edgeinfer.web.site.live import LOOK_S, known_sources
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.encoding import Encoded, Form
from edgeinfer.web.viewing.sign import Sign
from edgeinfer.web.viewing.viewer import DEFAULT_WIDTH, MAX_WIDTH, MIN_WIDTH

WAIT_S = 3.0
"""So long a snapshot waits for a picture."""
RETRY_S = "5"
WHOLE = 1 << 16
"""Wider than any picture."""
MAX_FPS, DEFAULT_FPS = 60.0, 10.0
BOUNDARY = "edgeinfer-picture"


def routes(views: Views) -> list[BaseRoute]:
    """Where that is served."""
    pictures = Pictures(views)
    return [
        Route("/api/v1/sources/{name}/snapshot.jpg", pictures.snapshot, methods=["GET"]),
        Route("/api/v1/sources/{name}/stream.mjpg", pictures.stream, methods=["GET"]),
    ]


class Pictures:
    """Used by the site's thread."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._snapshots = Seats(MAX_SNAPSHOTS, "snapshots wait for a picture")
        self._streams = Seats(MAX_MJPEG_STREAMS, "MJPEG streams are open")

    async def snapshot(self, request: Request) -> Response:
        """The picture of now, as a JPEG."""
        form = self._form(request, WHOLE)
        with self._snapshots.taken(), self._glance(form.source) as glance:
            try:
                return await asyncio.wait_for(self._newest(request, glance, form), WAIT_S)
            except asyncio.TimeoutError:
                raise no_picture(f"{form.source} gave no picture for {WAIT_S:.0f} seconds") from None

    async def stream(self, request: Request) -> Response:
        """Pictures without an end, each in place of the one before."""
        form, fps = self._form(request, DEFAULT_WIDTH), rate(request)
        if request.method == "HEAD":
            return Response(media_type=MjpegStream.media_type)
        return MjpegStream(self, form, fps)

    @contextlib.contextmanager
    def opened(self, source: str) -> Iterator[Glance]:
        """A look at a source that lasts."""
        with self._streams.taken(), self._glance(source) as glance:
            yield glance

    def sign(self, source: str) -> Sign | None:
        """What stands in place of pictures while a source gives none; None while it does."""
        return Sign.of(self._views.gallery.status(source), source)

    def has(self, source: str) -> bool:
        """Whether there is, and will be, something to see."""
        status = self._views.gallery.status(source)
        return source in known_sources(self._views) and (status is None or status.state != "ended")

    async def denial(self, scope: Scope) -> None:
        """Waits until who looks may look no more."""
        with contextlib.suppress(Refusal):
            while True:
                await asyncio.sleep(LOOK_S)
                check(scope, self._views)

    async def _newest(self, request: Request, glance: Glance, form: Form) -> Response:
        shot = await glance.next()
        if tag_of(shot.message) in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag_of(shot.message), "Cache-Control": "no-cache"})
        encoded = await glance.encoded(shot, form)
        if not encoded.jpeg:
            raise no_picture(encoded.why)
        headers = {"ETag": tag_of(encoded.message), "Cache-Control": "no-cache"}
        return Response(encoded.jpeg, headers=headers, media_type="image/jpeg")

    @contextlib.contextmanager
    def _glance(self, source: str) -> Iterator[Glance]:
        glance = Glance(self._views, source)
        try:
            yield glance
        finally:
            glance.close()

    def _form(self, request: Request, width: int) -> Form:
        """Raises Refusal for an unknown source, and for what is no width."""
        name, asked = request.path_params["name"], request.query_params
        if name not in known_sources(self._views):
            raise Refusal(404, "not-found", f"there is no source {name[:64]!r}", "/api/v1/status lists them")
        text = asked.get("width", str(width))
        if not (text.isascii() and text.isdecimal() and len(text) <= 6):
            raise Refusal(400, "bad-request", f"width: {text[:40]!r} is not a number of pixels")
        if "width" in asked:
            width = min(MAX_WIDTH, max(MIN_WIDTH, int(text)))
        return Form(name, width, asked.get("boxes", "0") not in ("", "0", "false"))


class MjpegStream(Response):
    """Ends when its source does. While that gives no pictures a sign stands there that says so.

    A picture is asked for when the one before has been taken: who is slow gets fewer.
    """

    media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"

    def __init__(self, pictures: Pictures, form: Form, fps: float) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self._pictures, self._form, self._period_s = pictures, form, 1 / fps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Raises Refusal where there are too many of them."""
        with self._pictures.opened(self._form.source) as glance:
            stays(scope)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            ends = self._show(glance, send), _departure(receive), self._pictures.denial(scope)
            doing = [asyncio.ensure_future(each) for each in ends]
            try:
                done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in doing:
                    task.cancel()
        with contextlib.suppress(OSError):  # the peer has gone
            for task in done:
                task.result()
            await send({"type": "http.response.body", "body": f"--{BOUNDARY}--\r\n".encode()})

    async def _show(self, glance: Glance, send: Send) -> None:
        loop = asyncio.get_running_loop()
        shown: Sign | None = None
        while self._pictures.has(glance.source):
            begun_s, sign = loop.time(), self._pictures.sign(glance.source)
            if sign is not None and sign != shown:
                await _send_part(send, sign.jpeg(self._form.width))
            shown = sign
            shot = glance.newer() if sign is None else None
            if shot is None:
                await glance.change()
                continue
            encoded = await glance.encoded(shot, self._form)
            await _send_encoded(send, encoded)
            await asyncio.sleep(self._period_s - (loop.time() - begun_s))


class Seats:
    """How many may do something at a time."""

    def __init__(self, count: int, what: str) -> None:
        self._count, self._what, self._used = count, what, 0

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """One of them, for as long as it is needed. Raises Refusal where all are taken."""
        if self._used >= self._count:
            raise Refusal(503, "too-many", f"{self._count} {self._what} already", headers={"Retry-After": RETRY_S})
        self._used += 1
        try:
            yield
        finally:
            self._used -= 1


def rate(request: Request) -> float:
    """Pictures a second at most. Raises Refusal."""
    text = request.query_params.get("fps", str(DEFAULT_FPS))
    try:
        fps = float(text[:20])
    except ValueError:
        fps = 0.0
    if not 0 < fps <= MAX_FPS:
        raise Refusal(400, "bad-request", f"fps: {text[:40]!r} is not a number of at most {MAX_FPS:.0f}")
    return max(fps, 0.01)


def tag_of(message: DetectionsMessage) -> str:
    """What names this picture and no other."""
    return f'"{message.session}-{message.frame_id}"'


def no_picture(text: str) -> Refusal:
    """The answer where there is nothing to see now."""
    return Refusal(503, "no-picture", text, "try again", {"Retry-After": RETRY_S})


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_encoded(send: Send, encoded: Encoded) -> None:
    if encoded.jpeg:
        await _send_part(send, encoded.jpeg, tag_of(encoded.message))


async def _send_part(send: Send, jpeg: bytes, tag: str = "") -> None:
    named = f"ETag: {tag}\r\n" if tag else ""
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n{named}\r\n"
    await send({"type": "http.response.body", "body": head.encode() + jpeg + b"\r\n", "more_body": True})
