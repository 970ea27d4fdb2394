"""The live view, WS /live: every picture with what was found in it, as fast as a viewer draws and never faster."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from edgeinfer.guard.limits import MAX_VIEWERS
from edgeinfer.messages import InfoMessage
from edgeinfer.web.site.answers import Refusal
from edgeinfer.web.site.door import cut, stays
from edgeinfer.web.site.gate import CLOSE_CODES, check, close_with
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.bell import Bell
from edgeinfer.web.viewing.encoding import Encoded, Form, framed
from edgeinfer.web.viewing.viewer import DEFAULT_WIDTH, STOPPED_S, Viewer, usable_width

LOOK_S = 1.0
"""How often it is looked whether a viewer still may look, and still draws."""
FAREWELL_S = 1.0
NOT_UNDERSTOOD, UNKNOWN_SOURCE, STOPPED, TOO_MANY = 1008, 4404, 4408, 4429


class Goodbye(Exception):  # noqa: N818 (an end like any other)
    """Ends a viewer's connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """What a viewer says: so many more pictures are drawn; these sources, so wide, from now on."""

    drawn: Annotated[int, Meta(ge=0, le=1000)] = 0
    sources: list[str] | UnsetType = UNSET
    width: Annotated[int, Meta(ge=0, le=1 << 20)] | UnsetType = UNSET


_wishes = msgspec.json.Decoder(Wish)


def routes(views: Views) -> list[BaseRoute]:
    """Where that is served."""
    return [WebSocketRoute("/live", Live(views).serve)]


class Live:
    """All viewers of a site. Used by its thread alone."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._connections: set[Connection] = set()
        self._bell: Bell | None = None

    async def serve(self, socket: WebSocket) -> None:
        """A viewer, from the request to the end."""
        if len(self._connections) >= MAX_VIEWERS:
            await close_with(socket, TOO_MANY, f"{MAX_VIEWERS} viewers look already; close another page first")
            return
        if self._bell is None:
            self._bell = Bell(asyncio.get_running_loop().call_soon_threadsafe)
        stays(socket.scope)
        await socket.accept()
        connection = Connection(socket, self._views, self._bell)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class Connection:
    """One viewer's. `run` it once."""

    def __init__(self, socket: WebSocket, views: Views, bell: Bell) -> None:
        self._socket, self._views, self._gallery = socket, views, views.gallery
        self._due = asyncio.Event()
        self._made: deque[Encoded] = deque()  # from the encoder's thread
        self._fresh = True  # whether there may be newer pictures than were looked for
        self._tell_made = partial(bell.ring, self._due.set)
        self._watch = self._gallery.watch(partial(bell.ring, self._notice))
        self._viewer = Viewer(time.monotonic())
        self._sees_all = False
        self._sending_since_s: float | None = None

    async def run(self) -> None:
        """Until the viewer goes, or must."""
        doing = [asyncio.ensure_future(each) for each in (self._listen(), self._send(), self._look_after())]
        try:
            done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._gallery.leave(self._watch)
            for task in doing:
                task.cancel()
        ends = [error for task in done if isinstance(error := task.exception(), Goodbye)]
        others = [error for task in done if (error := task.exception()) and not isinstance(error, WebSocketDisconnect)]
        if ends:
            await self._say_goodbye(ends[0])
        elif others:
            raise others[0]

    def _notice(self) -> None:
        self._fresh = True
        self._due.set()

    async def _listen(self) -> None:
        self._begin()
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            if not self._viewer.may_speak(time.monotonic()):
                raise Goodbye(NOT_UNDERSTOOD, "you say more than there is to say")
            self._hear(message)

    def _begin(self) -> None:
        """What the address asks for: without `sources`, all that there are and come."""
        asked = self._socket.query_params
        width = asked.get("width", str(DEFAULT_WIDTH))
        if not (width.isascii() and width.isdecimal() and len(width) <= 6):
            raise Goodbye(NOT_UNDERSTOOD, "width is a number of pixels")
        self._sees_all = "sources" not in asked
        named = [name for name in asked.get("sources", "").split(",") if name]
        self._look(known_sources(self._views) if self._sees_all else named, int(width))

    def _hear(self, message: Any) -> None:
        text = message.get("text")
        try:
            wish = _wishes.decode(text or "")
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise Goodbye(NOT_UNDERSTOOD, 'expected {"drawn": N} or {"sources": [...], "width": W}') from None
        self._viewer.drawn(wish.drawn, time.monotonic())
        if wish.sources is not UNSET or wish.width is not UNSET:
            self._sees_all = self._sees_all and wish.sources is UNSET
            sources = self._viewer.sources if wish.sources is UNSET else wish.sources
            self._look(sources, self._viewer.width if wish.width is UNSET else wish.width)
        if self._viewer.waits:
            self._due.set()

    def _look(self, sources: Sequence[str], width: int) -> None:
        unknown = sorted(set(sources) - set(known_sources(self._views)) - set(self._viewer.sources))
        if unknown:
            raise Goodbye(UNKNOWN_SOURCE, f"there is no source {unknown[0][:64]!r}")
        self._viewer.look(sources, usable_width(width))
        self._gallery.look(self._watch, sources)
        self._notice()

    async def _send(self) -> None:
        while await self._due.wait():
            self._due.clear()
            self._take_news()
            self._take_made()
            if self._fresh or self._viewer.waits:
                self._order()
            await self._send_what_is_due()

    async def _send_what_is_due(self) -> None:
        while (data := self._viewer.take(time.monotonic())) is not None:
            self._sending_since_s = time.monotonic()
            try:
                await self._socket.send_bytes(data)
            except RuntimeError:  # Starlette's word for it once it knows that the viewer has gone
                raise WebSocketDisconnect from None
            self._sending_since_s = None

    def _take_news(self) -> None:
        for key, message in self._gallery.take_news(self._watch).items():
            self._viewer.tell(key, framed(message))
            if self._sees_all and isinstance(message, InfoMessage):
                self._viewer.look(message.sources, self._viewer.width)
                self._gallery.look(self._watch, message.sources)

    def _take_made(self) -> None:
        while self._made:
            encoded = self._made.popleft()
            source, mark = encoded.message.source, encoded.mark
            if encoded.jpeg:
                self._viewer.add(source, mark, encoded.framed)
            else:
                self._viewer.give_up(source, mark)

    def _order(self) -> None:
        """Has the pictures made that the viewer is to get next."""
        self._fresh = False
        shots = self._gallery.newest_of(self._viewer.sources)
        marks = {source: shot.mark for source, shot in shots.items()}
        while (source := self._viewer.next(marks)) is not None:
            self._views.encoder.ask(shots[source], Form(source, self._viewer.width), self._take_later)

    def _take_later(self, encoded: Encoded) -> None:
        """On the encoder's thread."""
        self._made.append(encoded)
        self._tell_made()

    async def _look_after(self) -> None:
        """Whether the viewer still may look, and still does."""
        while True:
            await asyncio.sleep(LOOK_S)
            now_s, since_s = time.monotonic(), self._sending_since_s
            if self._viewer.has_stopped(now_s) or (since_s is not None and now_s - since_s > STOPPED_S):
                raise Goodbye(STOPPED, f"nothing was drawn for {STOPPED_S:.0f} seconds")
            try:
                check(self._socket.scope, self._views)
            except Refusal as refusal:
                raise Goodbye(CLOSE_CODES.get(refusal.status, NOT_UNDERSTOOD), refusal.text) from None

    async def _say_goodbye(self, goodbye: Goodbye) -> None:
        """To who takes it; the connection of one who takes nothing is cut."""
        reason = goodbye.reason.encode()[:123].decode("utf-8", "ignore")
        try:
            await asyncio.wait_for(self._socket.close(goodbye.code, reason), FAREWELL_S)
        except asyncio.TimeoutError:
            cut(self._socket.scope)
        except (WebSocketDisconnect, RuntimeError):  # it has gone by itself
            pass


def known_sources(views: Views) -> list[str]:
    """Those that the run has."""
    told = views.gallery.sources
    return list(views.picture().sources) if told is None else told
