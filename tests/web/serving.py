"""A site on loopback, of a daemon that is made up."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from edgeinfer.flow.statistics import Statistics
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SourceSnapshot
from edgeinfer.web import pages
from edgeinfer.web.access.rights import Access, Asked, Grant, Refusal, Standing
from edgeinfer.web.site.server import Site
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.desk import NoDesk


class Reply(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["code"])


def snapshot(**changes: Any) -> DaemonSnapshot:
    books = SourceSnapshot("running", None, 12, 10, 0, {"overload": 2}, 9.876, decoder=("h264", "it is there"))
    return DaemonSnapshot(**{"model": "net@12345678", "backend": "onnxruntime-cpu", "sources": {"a": books}, **changes})


class Everybody(Access):
    """Says of everybody what a test wants: a role, or None for nobody who is known."""

    def __init__(self, role: Standing | None) -> None:
        super().__init__(local=True)
        self.role = role

    def still(self, grant: Grant) -> bool:
        return self.role is not None

    def _who(self, asked: Asked) -> Grant | Refusal:
        return Grant(self.role) if self.role else Refusal(401, "unauthorized", "this needs a token")


def views(**changes: Any) -> Views:
    picture, stats = changes.pop("picture", snapshot), Statistics()
    given = {
        "session": "s",
        "picture": picture,
        "stats": stats,
        "model": dict,
        "config": NoDesk(),
        "pages": pages.routes(picture, stats, 1),
        **changes,
    }
    return Views(**given)


@contextmanager
def serving(shown: Views | None = None, **given: Any) -> Iterator[Site]:
    site = Site("127.0.0.1", 0, shown or views(), **given)
    site.start()
    try:
        yield site
    finally:
        site.stop()
        assert not site._thread.is_alive()


def ask(site: Site, path: str, method: str = "GET", body: Any = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        given.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, body=body, headers=given)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
    finally:
        connection.close()
