"""A bounded HTTP server: GET and HEAD of a few fixed paths, few connections, short requests, short patience."""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from ipaddress import ip_address
from typing import Any

from edgeinfer.errors import ConfigError, TemporaryError
from edgeinfer.guard.reachability import is_loopback

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 8
MAX_REQUEST_BYTES = 16 << 10
DEADLINE_S = 5.0
"""From the connection to the end of the answer, however busy the peer keeps it."""
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path gives."""

    status: int
    body: bytes
    content_type: str = "application/json"


Routes = Mapping[str, Callable[[str], Answer]]
"""Path → what makes its answer, from the request's Accept header. Called on a connection's thread."""


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


class Server(ThreadingHTTPServer):
    """Serves `routes` from `start` to `stop`. Connections beyond MAX_CONNECTIONS are turned away at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        """Binds. Raises TemporaryError where the port is taken, ConfigError where the address can't be used."""
        self.routes = routes
        self.local_only = is_loopback(host)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise _refused(host, port, error) from None
        self.port = int(self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, args=(0.2,), name="http", daemon=True)

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, with the connections that are open."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()
        self._expire(time.monotonic() + DEADLINE_S + 1)

    def server_bind(self) -> None:
        """Like the base class's, but for its look-up of our own name, which may take a resolver's patience."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes a connection on, or turns it away where there are too many."""
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open[request] = time.monotonic()
        if full:
            with suppress(OSError):
                request.settimeout(0.1)
                request.sendall(BUSY)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection's end."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called several times a second."""
        self._expire(time.monotonic())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that hung up is no news, and anything else is a bug."""
        log.debug("http: a request failed", exc_info=True)

    def _expire(self, now_s: float) -> None:
        with self._lock:
            late = [connection for connection, since_s in self._open.items() if now_s - since_s > DEADLINE_S]
        for connection in late:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One request; the connection is closed after it (HTTP/1.0)."""

    server: Server
    timeout = DEADLINE_S

    def version_string(self) -> str:
        """No versions for strangers."""
        return "edgeinfer"

    def setup(self) -> None:
        """Bounds what is read."""
        super().setup()
        self._limited = _Limited(self.rfile, MAX_REQUEST_BYTES)
        self.rfile = self._limited  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Answers with the body."""
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        """Answers without it."""
        self._respond(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """A request is no news, and its path is somebody else's text."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A line of text, without what the peer sent."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.request_version = "HTTP/1.0"  # it may have been no HTTP at all, and then no status would be sent
        self._send(Answer(status, f"{status.phrase}\n".encode(), "text/plain"), self.command != "HEAD")
        self.close_connection = True

    def _respond(self, with_body: bool) -> None:
        if self._limited.exhausted:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        if self.server.local_only and not _is_local_name(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)  # a web page that has its own name point to us
            return
        make = self.server.routes.get(self.path.partition("?")[0])
        if make is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            answer = make(self.headers.get("Accept", ""))
        except Exception:
            log.exception("http: %s failed", self.path.partition("?")[0])
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._send(answer, with_body)

    def _send(self, answer: Answer, with_body: bool) -> None:
        self.send_response(answer.status)
        for name, value in (
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)


class _Limited:
    """A stream that ends after so many bytes."""

    def __init__(self, stream: BufferedIOBase, limit: int) -> None:
        self._stream = stream
        self._left = limit

    @property
    def exhausted(self) -> bool:
        return self._left <= 0

    def readline(self, size: int = -1) -> bytes:
        line = self._stream.readline(self._left if size < 0 else min(size, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return self._stream.closed


def _is_local_name(host: str) -> bool:
    """Whether a Host header names this machine by an address or as localhost."""
    name = re.sub(r":\d{1,5}$", "", host).strip("[]").lower()
    if not name or name in _LOOPBACK_NAMES:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _refused(host: str, port: int, error: OSError) -> ConfigError | TemporaryError:
    if error.errno == errno.EADDRINUSE:
        return TemporaryError(
            f"http.bind: {host}:{port} is in use by another program",
            "--set http.bind=127.0.0.1:PORT chooses another",
        )
    return ConfigError(f"http.bind: {host}:{port}: {error.strerror or error}", "bind to an address of this machine")
