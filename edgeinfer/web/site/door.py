"""Who comes in: so many connections and no more, each with its request in time, and the oldest gives way.

uvicorn's own server takes everybody and waits for ever; its protocols are used here, and its server is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from edgeinfer.guard.descriptors import SpareDescriptor
from edgeinfer.guard.limits import HTTP_DEADLINE_S, MAX_HTTP_PEERS, UNREAD_MS
from edgeinfer.guard.scarcity import is_scarce

log = logging.getLogger(__name__)

DEADLINE_S = float(HTTP_DEADLINE_S)
ACCEPTED_AT_ONCE = 8
REST_S = 0.5
GUEST = "edgeinfer.guest"
"""Where a request says whose it is."""


class Guest:
    """A connection, from the moment it is accepted. `lasting`: somebody else bounds how many of its kind there are."""

    def __init__(self, door: Door) -> None:
        self.lasting = self.begun = False
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.BaseTransport | None = None
        self.answering: Visit | None = None
        self._door = door

    @property
    def busy(self) -> bool:
        """Whether its request is complete, and its answer is not."""
        return self.answering is not None and self.answering.busy

    def left(self) -> None:
        """It has gone."""
        self._door.forget(self)

    def abort(self) -> None:
        """Has it go, whatever it is doing."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        elif self.task is not None:
            self.task.cancel()
        self._door.forget(self)


class Visit(H11Protocol):
    """One connection's HTTP. A request that is not complete in time ends it."""

    def __init__(self, guest: Guest, **given: Any) -> None:
        super().__init__(**given)
        self.app: Any = functools.partial(_known, self.app, guest)
        self.ws_protocol_class: Any = functools.partial(View, guest)
        self._guest = guest
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """See `Guest.busy`."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It has been let in."""
        super().connection_made(transport)
        self._guest.transport, self._guest.answering = transport, self
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        self._expect()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self.conn.their_state is not h11.SEND_BODY:
            self._expect_nothing()

    def on_response_complete(self) -> None:
        """Who has asked for more before the answer was there gets no more: each would come before other people's."""
        if self.conn.trailing_data[0]:
            self.transport.close()
        else:
            super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._expect_nothing()
        super().connection_lost(exc)
        self.transport.close()  # Python 3.10 holds one of TLS to be open where the peer has ended it
        self._guest.left()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From now on it is a view."""
        self._expect_nothing()
        self._guest.answering = None
        super().handle_websocket_upgrade(event)

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(DEADLINE_S, self._guest.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class View(WebSocketsSansIOProtocol):
    """One connection's WebSocket."""

    def __init__(self, guest: Guest, **given: Any) -> None:
        super().__init__(**given)
        self.app: Any = functools.partial(_known, self.app, guest)
        self._guest = guest

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self.transport.close()  # as above
        self._guest.left()


async def _known(app: ASGIApp, guest: Guest, scope: Scope, receive: Receive, send: Send) -> None:
    scope[GUEST] = guest
    try:
        await app(scope, receive, send)
    finally:
        guest.lasting = False  # what is left of it is a farewell, which nobody has to take


def stays(scope: Scope) -> None:
    """This connection's answer has no end; whoever gives it bounds how many there are."""
    guest = scope.get(GUEST)
    if isinstance(guest, Guest):
        guest.lasting = True


def cut(scope: Scope) -> None:
    """Ends this connection as it is, for one that takes nothing any more."""
    guest = scope.get(GUEST)
    if isinstance(guest, Guest):
        guest.abort()


class Door:
    """Used by the loop's thread alone. Where MAX_HTTP_PEERS are there already, the oldest of the idle gives way."""

    def __init__(self, listener: socket.socket, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        self._listener, self._config, self._tls = listener, config, tls
        self._state = ServerState()
        self._guests: dict[Guest, None] = {}  # the oldest first
        self._resting: asyncio.TimerHandle | None = None
        self._spare = SpareDescriptor()

    def open(self) -> None:
        """Lets people in from now on."""
        self._spare.reserve()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Has everybody go at once."""
        asyncio.get_running_loop().remove_reader(self._listener)
        if self._resting is not None:
            self._resting.cancel()
        for guest in list(self._guests):
            guest.abort()
        self._spare.give_up()

    def forget(self, guest: Guest) -> None:
        """A guest has gone, or is going."""
        self._guests.pop(guest, None)
        self._spare.reserve()

    def _accept(self) -> None:
        """Takes some: each is served a few turns later, before so many newer ones are there that it gives way.

        Without a spare descriptor it takes one: the kernel says that there are no more even where nobody waits for one.
        """
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:  # nobody is there, or who knocked has gone
                return
            except OSError as error:
                if is_scarce(error) and not self._make_room():
                    self._rest()
                return
            self._take(connection)
            if not self._spare.held:
                return

    def _take(self, connection: socket.socket) -> None:
        passing = [guest for guest in self._guests if not guest.lasting]
        if len(passing) >= MAX_HTTP_PEERS:
            self._oldest(passing).abort()
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        guest = Guest(self)
        self._guests[guest] = None
        guest.task = asyncio.get_running_loop().create_task(self._receive(guest, connection))
        guest.task.add_done_callback(lambda _: None if guest.begun else connection.close())

    async def _receive(self, guest: Guest, connection: socket.socket) -> None:
        """From here on the loop closes it, however it ends."""
        guest.begun = True
        patience_s = None if self._tls is None else DEADLINE_S
        visit = functools.partial(Visit, guest, config=self._config, server_state=self._state, app_state={})
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await loop.connect_accepted_socket(visit, connection, ssl=self._tls, ssl_handshake_timeout=patience_s)
        if guest.transport is None:  # its handshake has failed or took too long; Python 3.10 may call that a success
            guest.left()

    def _make_room(self) -> bool:
        """Frees a descriptor where the process has no more: the one that is kept for that, or the oldest guest's."""
        if self._spare.give_up():
            return True
        if self._guests:
            self._oldest(list(self._guests)).abort()
        return False

    @staticmethod
    def _oldest(guests: list[Guest]) -> Guest:
        """Of those that wait for nothing, where there are any."""
        return next((guest for guest in guests if not guest.busy and not guest.lasting), guests[0])

    def _rest(self) -> None:
        """Leaves those that knock alone for a moment, instead of trying again and again."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._resting = loop.call_later(REST_S, self.open)
