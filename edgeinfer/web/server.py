"""A bounded HTTP server on one thread: no peer holds anything but its own place, and that for a moment only."""

from __future__ import annotations

import errno
import logging
import re
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from edgeinfer.errors import ConfigError, TemporaryError
from edgeinfer.guard.descriptors import SpareDescriptor
from edgeinfer.guard.limits import HTTP_DEADLINE_S, MAX_HTTP_PEERS, MAX_REQUEST_BYTES
from edgeinfer.guard.reachability import is_loopback
from edgeinfer.guard.scarcity import is_scarce
from edgeinfer.web.request import Routes, is_complete, respond

log = logging.getLogger(__name__)

DEADLINE_S = float(HTTP_DEADLINE_S)
BACKLOG = 128
TICK_S, REST_S = 0.2, 0.5


def parse_bind(bind: str, insecure: bool) -> tuple[str, int]:
    """`HOST:PORT` or `[HOST]:PORT`. Raises ConfigError where it is none or others could reach it."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):(\d{1,5})", bind)
    if not match or int(match[2]) > 65535:
        raise ConfigError(f"http.bind: {bind!r} is not an address", "for instance 127.0.0.1:9108")
    host = match[1].strip("[]")
    if not insecure and not is_loopback(host):
        raise ConfigError(
            f"http.bind: {bind} can be reached from other machines, and nothing protects it there",
            "bind to 127.0.0.1, or write insecure: true under http",
        )
    return host, int(match[2])


@dataclass(eq=False)
class Peer:
    """A connection: what has come of its request, and then what is still to be sent."""

    socket: socket.socket
    since_s: float
    request: bytes = b""
    answer: bytes | None = None
    sent: int = field(default=0)

    def read(self) -> bool:
        """Reads what is there. Whether the request is complete. Raises OSError."""
        data = self.socket.recv(MAX_REQUEST_BYTES - len(self.request))
        self.request += data
        return not data or is_complete(self.request)

    def write(self) -> bool:
        """Sends what can be sent. Whether that was all. Raises OSError."""
        answer = self.answer or b""
        if self.sent < len(answer):
            self.sent += self.socket.send(memoryview(answer)[self.sent :])
        return self.sent >= len(answer)


class Server:
    """Serves `routes` from `start` to `stop`. Where MAX_HTTP_PEERS are there already, the oldest gives way."""

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        """Binds. Raises TemporaryError where the port is taken, ConfigError where the address can't be used."""
        self.routes = routes
        self.local_only = is_loopback(host)
        self._listener = listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        self._open: dict[Peer, None] = {}  # the oldest first
        self._resting_until_s: float | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._spare = SpareDescriptor()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, with the connections that are open."""
        if self._thread.is_alive():
            self._wake.send(b"x")
            self._thread.join()
        else:
            self._close()

    def _run(self) -> None:
        try:
            self._spare.reserve()
            while self._turn():
                pass
        except Exception:
            log.exception("http: unexpected error; nothing is answered any more")
        finally:
            self._close()

    def _turn(self) -> bool:
        """Whether to go on, after what was to be done at this moment."""
        for key, _ in self._selector.select(TICK_S):
            if key.fileobj is self._woken:
                return False
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._serve(key.data)
        self._expire(time.monotonic())
        return True

    def _accept(self) -> None:
        """Takes one: the kernel says that there are no more descriptors even where nobody waits for one."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # who knocked has gone
            return
        except OSError as error:
            if is_scarce(error) and not self._make_room():
                self._rest()
            return
        self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        if len(self._open) >= MAX_HTTP_PEERS:
            self._drop(next(iter(self._open)))
        connection.setblocking(False)
        peer = Peer(connection, time.monotonic())
        self._open[peer] = None
        self._selector.register(connection, selectors.EVENT_READ, peer)
        self._serve(peer)  # its request has mostly come with it

    def _serve(self, peer: Peer) -> None:
        if peer not in self._open:
            return  # it gave way to another in this turn
        try:
            if peer.answer is None and peer.read():
                peer.answer = respond(peer.request, self.routes, self.local_only)
                self._selector.modify(peer.socket, selectors.EVENT_WRITE, peer)
            if peer.answer is not None and peer.write():
                self._drop(peer)
        except BlockingIOError:
            pass
        except OSError:  # it has gone
            self._drop(peer)
        except Exception:  # one peer's request must not end the answers to all others
            log.exception("http: a request failed")
            self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        """The connection's end."""
        del self._open[peer]
        self._selector.unregister(peer.socket)
        with suppress(OSError):
            peer.socket.shutdown(socket.SHUT_RDWR)
        peer.socket.close()
        self._spare.reserve()

    def _make_room(self) -> bool:
        """Frees a descriptor where the process has no more: the one that is kept for that, or the oldest peer's."""
        if self._spare.give_up():
            return True
        if self._open:
            self._drop(next(iter(self._open)))
        return False

    def _rest(self) -> None:
        """Leaves those that knock alone for a moment, instead of trying again and again."""
        self._selector.unregister(self._listener)
        self._resting_until_s = time.monotonic() + REST_S

    def _expire(self, now_s: float) -> None:
        for peer in [peer for peer in self._open if now_s - peer.since_s > DEADLINE_S]:
            self._drop(peer)
        if self._resting_until_s is not None and now_s >= self._resting_until_s:
            self._resting_until_s = None
            self._spare.reserve()
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _close(self) -> None:
        for peer in list(self._open):
            self._drop(peer)
        self._selector.close()
        for each in (self._listener, self._wake, self._woken):
            each.close()
        self._spare.give_up()


def listen(host: str, port: int) -> socket.socket:
    """A socket that others can knock at. Raises TemporaryError where the port is taken, ConfigError where the address
    can't be used."""
    try:
        return _listen(host, port)
    except OSError as error:
        raise _refused(host, port, error) from None


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _refused(host: str, port: int, error: OSError) -> ConfigError | TemporaryError:
    if error.errno == errno.EADDRINUSE:
        return TemporaryError(
            f"http.bind: {host}:{port} is in use by another program",
            "--set http.bind=127.0.0.1:PORT chooses another",
        )
    if is_scarce(error):
        return TemporaryError(f"http.bind: {host}:{port}: {error.strerror}", "try again")
    return ConfigError(f"http.bind: {host}:{port}: {error.strerror or error}", "bind to an address of this machine")
