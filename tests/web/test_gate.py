"""Who is let in, and what every answer carries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgeinfer.guard.limits import MAX_WEB_BODY_BYTES
from edgeinfer.web.request import Answer
from edgeinfer.web.site import admin
from edgeinfer.web.site.answers import body_of, json_response
from edgeinfer.web.site.app import application
from edgeinfer.web.site.gate import HEADERS
from edgeinfer.web.site.openapi import OPERATIONS
from edgeinfer.web.site.server import Site
from tests.test_web import FOREIGN
from tests.web.serving import Everybody, ask, serving, snapshot, views

OPEN = ("/", "/healthz", "/readyz")
CLOSED = ("/metrics", "/openapi.json", "/api/v1/status", "/api/v1/info", "/api/v1/events", "/api/v1/config", "/nothing")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as made:
        yield made


def test_health_metrics_and_readiness_are_those_of_the_small_server(site: Site) -> None:
    for path in ("/healthz", "/readyz", "/readyz?verbose"):
        found = ask(site, path)
        assert (found.status, found.json) == (200, {"ok": True, "reasons": []})
        assert found.headers["content-type"] == "application/json"
    metrics = ask(site, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert b"edgeinfer_source_fps" in metrics.body


def test_what_is_wrong_is_a_503_with_the_reason() -> None:
    with serving(views(picture=lambda: snapshot(backend=""))) as site:
        found = ask(site, "/readyz")
        assert (found.status, found.json["reasons"][0]["code"]) == (503, "model")


def test_what_every_answer_carries(site: Site) -> None:
    for path, method, status in (("/", "GET", 200), ("/none", "GET", 404), ("/healthz", "POST", 405)):
        found = ask(site, path, method)
        assert found.status == status
        assert {name.lower(): text for name, text in HEADERS.items()}.items() <= found.headers.items()
        assert found.headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
        assert not {"server", "date", "x-powered-by"} & found.headers.keys()


def test_a_path_or_a_method_that_there_is_not_is_told_as_json(site: Site) -> None:
    assert ask(site, "/none").error == "not-found"
    assert ask(site, "/static/../../etc/passwd").error == "not-found"
    assert ask(site, "/static/%2e%2e/request.py").error == "not-found"
    wrong = ask(site, "/healthz", "DELETE")
    assert (wrong.status, wrong.error) == (405, "wrong-method")
    assert "GET" in wrong.headers["allow"]


def test_head_has_no_body(site: Site) -> None:
    found = ask(site, "/healthz", "HEAD")
    assert (found.status, found.body) == (200, b"")
    assert int(found.headers["content-length"]) > 0


def test_a_web_page_under_its_own_name_gets_nothing(site: Site) -> None:
    for host in FOREIGN:
        assert ask(site, "/metrics", Host=host).error == "misdirected", host
    for host in ("localhost:9108", "LOCALHOST", "127.0.0.1", "192.0.2.1:80", "[::1]:9108"):
        assert ask(site, "/healthz", Host=host).status == 200, host


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:9", 200),
        ("http://evil.example", 403),
        ("https://localhost:9", 403),
        ("http://localhost:8", 403),
        ("http://localhost:9.evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_another_page_may_not_ask(site: Site, origin: str, status: int) -> None:
    assert ask(site, "/api/v1/status", Host="localhost:9", Origin=origin).status == status


def test_a_body_must_be_json_as_no_form_can_send_it(site: Site) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"):
        assert ask(site, "/api/v1/config/check", "POST", {"text": ""}, Content_Type=kind).error == "wrong-type"


def test_without_rights_only_the_page_and_the_health_are_shown() -> None:
    with serving(views(access=Everybody(None))) as site:
        assert [ask(site, path).status for path in OPEN] == [200] * len(OPEN)
        for path in CLOSED:
            found = ask(site, path)
            assert (found.status, found.error) == (401, "unauthorized"), path
            assert found.headers["www-authenticate"] == "Bearer"


def test_a_status_says_who_asks() -> None:
    with serving(views(access=Everybody("admin"))) as site:
        assert ask(site, "/api/v1/status").json["role"] == "admin"


def test_a_page_that_fails_is_a_500_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: str) -> Answer:
        raise RuntimeError("secret")

    with serving(views(pages={"/broken": broken})) as site:
        found = ask(site, "/broken")
        assert (found.status, found.error) == (500, "internal")
        assert b"secret" not in found.body
        assert ask(site, "/").status == 200
    assert [record.getMessage() for record in caplog.records] == ["http: /broken failed"]


def test_the_page_is_not_sent_again_where_it_is_known(site: Site) -> None:
    first = ask(site, "/")
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    again = ask(site, "/", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert ask(site, "/", If_None_Match='"another"').status == 200
    assert ask(site, "/static/index.html").body == first.body


def test_every_path_is_described() -> None:
    described = {(one.method.upper(), one.path.replace("{name}", "a")) for one in OPERATIONS}
    app: Any = application(views())._app  # type: ignore[attr-defined]
    served = {
        (method, route.path.replace("{name}", "a").replace("{name:path}", "a"))
        for route in app.routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD" and not route.path.startswith("/static/")
    }
    assert served <= described
    assert ("GET", "/api/v1/status") in served


def test_the_description_is_json_with_every_reference_in_it(site: Site) -> None:
    found = ask(site, "/openapi.json").json
    assert found["openapi"].startswith("3.1")
    text = json.dumps(found)
    names = {part.partition('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert names
    assert names <= found["components"]["schemas"].keys()


class Asked(msgspec.Struct):
    """A body."""

    text: str


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with a path that reads a body, as those do that change something."""

    async def read(request: Request) -> Response:
        return json_response(len((await body_of(request, Asked)).text))

    monkeypatch.setattr(admin, "routes", lambda _: [Route("/api/v1/echo", read, methods=["POST"])])
    with serving(views(access=Everybody("admin"))) as made:
        yield made


def test_a_body_that_is_too_large_is_refused(echo: Site) -> None:
    longest = MAX_WEB_BODY_BYTES - len('{"text": ""}')
    assert ask(echo, "/api/v1/echo", "POST", {"text": "x" * longest}).json == longest
    refused = ask(echo, "/api/v1/echo", "POST", {"text": "x" * (longest + 1)})
    assert (refused.status, refused.error) == (413, "too-large")
    assert ask(echo, "/healthz").status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"text": 1}', b"\xff", b"[" * 100_000, b'{"text": "\xff"}'])
def test_a_body_that_is_something_else_is_refused(echo: Site, body: bytes) -> None:
    assert ask(echo, "/api/v1/echo", "POST", body).error == "bad-request"
