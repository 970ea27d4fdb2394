"""One HTTP request, read completely, and the bytes of its answer: GET and HEAD of a few fixed paths."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from edgeinfer.guard.limits import MAX_REQUEST_BYTES
from edgeinfer.web.access.origin import is_local_host

log = logging.getLogger(__name__)

_END = re.compile(rb"\n\r?\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path gives."""

    status: int
    body: bytes
    content_type: str = "application/json"


Routes = Mapping[str, Callable[[str], Answer]]
"""Path → what makes its answer, from the request's Accept header. Called on the server's thread."""


def is_complete(data: bytes) -> bool:
    """Whether nothing more is to be read: the headers are at their end, or too long."""
    return len(data) >= MAX_REQUEST_BYTES or _END.search(data) is not None


def respond(data: bytes, routes: Routes, local_only: bool) -> bytes:
    """The answer to a request; empty for one of which nothing came. `local_only` wants a Host of this machine."""
    return _Request(data, routes, local_only).answer


class _Request(BaseHTTPRequestHandler):
    """The base class parses; nothing is read from a connection or written to one here."""

    def __init__(self, data: bytes, routes: Routes, local_only: bool) -> None:  # the base class's would want a socket
        self._routes, self._local_only = routes, local_only
        self._too_long = len(data) >= MAX_REQUEST_BYTES
        self.rfile, self.wfile = io.BytesIO(data[:MAX_REQUEST_BYTES]), io.BytesIO()
        self.client_address, self.close_connection = ("", 0), True
        self.handle_one_request()

    @property
    def answer(self) -> bytes:
        """What is to be sent."""
        written = self.wfile
        assert isinstance(written, io.BytesIO)  # noqa: S101 (made above)
        return written.getvalue()

    def version_string(self) -> str:
        """No versions for strangers."""
        return "edgeinfer"

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
        if self._too_long:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        if self._local_only and not is_local_host(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)  # a web page that has its own name point to us
            return
        make = self._routes.get(self.path.partition("?")[0])
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
