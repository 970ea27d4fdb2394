"""The paths that change the configuration: who may, what is asked for, and what each refusal looks like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.config.replacing import ChangedError
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, TemporaryError
from edgeinfer.guard.limits import MAX_WEB_BODY_BYTES
from edgeinfer.web.access.rights import Access, Asked, Grant, Refusal, Standing
from edgeinfer.web.site.server import Site
from edgeinfer.web.viewing.desk import BadNameError, BusyError, NoDesk, NoSuchSourceError, Outcome, UnfinishedError
from tests.test_desk import MORE, SECRETS, TEXT, Made
from tests.web.serving import Everybody, ask, serving, views

CHANGES: list[tuple[str, str, Any]] = [
    ("/api/v1/reload", "POST", {}),
    ("/api/v1/reload", "POST", {"text": MORE}),
    ("/api/v1/sources/gate", "POST", {"uri": "demo:"}),
    ("/api/v1/sources/yard", "DELETE", None),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def made(path: Path) -> Made:
    return Made(path)


class Named(Access):
    """Says of each who a header says it is."""

    def __init__(self) -> None:
        super().__init__(local=True)

    def _who(self, asked: Asked) -> Grant | Refusal:
        return Grant(ROLES[asked.header("x-role")])


ROLES: dict[str, Standing] = {"admin": "admin", "local": "local", "viewer": "viewer", "": "viewer"}


@pytest.fixture
def site(made: Made) -> Iterator[Site]:
    """With the rights that a header names."""
    with serving(views(config=made.desk, access=Named())) as site:
        yield site


def test_an_editor_reads_checks_writes_and_reloads(site: Site, made: Made, path: Path) -> None:
    config = ask(site, "/api/v1/config?text=1", x_role="admin").json
    assert (config["text"], config["path"], config["reloadable"]) == (TEXT, str(path), True)
    assert config["origins"] == {"yard": {"kind": "file", "place": f"{path}:3:3", "removable": False}}
    checked = ask(site, "/api/v1/config/check", "POST", {"text": MORE}).json
    assert (checked["ok"], checked["changes"], checked["refused"]) == (True, ["sources.gate: added"], None)
    body = {"text": MORE, "digest": config["digest"]}
    reply = ask(site, "/api/v1/reload", "POST", body, x_role="admin")
    assert (reply.status, reply.json["ok"], path.read_text()) == (200, True, MORE)
    assert made.sources == ["yard", "gate"]
    again = ask(site, "/api/v1/reload", "POST", {**body, "text": TEXT}, x_role="admin")
    assert (again.status, again.error, path.read_text()) == (409, "changed", MORE)
    body = {"text": TEXT, "digest": reply.json["digest"]}
    assert ask(site, "/api/v1/reload", "POST", body, x_role="admin").status == 200


def test_what_is_wrong_is_told_to_whoever_may_look(site: Site) -> None:
    reply = ask(site, "/api/v1/config/check", "POST", {"text": "sources:\n  yard: {uri: 'demo:', max_fsp: 5}\n"})
    (error,) = reply.json["errors"]
    assert (reply.status, reply.json["ok"]) == (200, False)
    assert (error["line"], error["column"], error["end_column"]) == (2, 24, 31)
    assert error["hint"] == "did you mean max_fps?"


def test_sources_come_and_go(site: Site, made: Made, path: Path) -> None:
    source = "/api/v1/sources/gate"
    for keep, kind in (("restart", "memory"), ("file", "api")):
        reply = ask(site, source, "POST", {"uri": "demo:", "max_fps": 3, "keep": keep}, x_role="admin")
        assert (reply.status, reply.json["changes"]) == (200, ["x: changed"])
        assert made.config.sources["gate"].max_fps == 3
        assert ask(site, "/api/v1/config").json["origins"]["gate"]["kind"] == kind
        assert ask(site, source, "DELETE", x_role="admin").status == 200
        assert made.sources == ["yard"]
    assert ask(site, source, "DELETE", x_role="admin").error == "unknown-source"
    assert ask(site, "/api/v1/sources/yard", "DELETE", x_role="admin").status == 409


@pytest.mark.parametrize(("where", "method", "body"), CHANGES)
@pytest.mark.parametrize("role", ["viewer", "local"])
def test_nobody_but_an_admin_changes_anything(
    site: Site, made: Made, path: Path, where: str, method: str, body: Any, role: str
) -> None:
    reply = ask(site, where, method, body, x_role=role)
    assert (reply.status, reply.error) == (403, "forbidden")
    assert "edgeinfer web token new" in reply.json["error"]["hint"]
    assert (made.reloads, path.read_text()) == (0, TEXT)


def test_nobody_changes_anything_from_another_page(site: Site, made: Made) -> None:
    for where, method, body in CHANGES:
        reply = ask(site, where, method, body, x_role="admin", Origin="http://evil.example")
        assert (reply.status, reply.error) == (403, "foreign-origin")
    assert made.reloads == 0


@pytest.mark.parametrize("name", ["..", "a%2Fb", "..%2Fx", "a%00", "%0a", "-a", "a.b", "%1b%5b2J", "x" * 65, "%C3%A9"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_hostile_names_go_nowhere(site: Site, made: Made, path: Path, name: str, method: str) -> None:
    body = {"uri": "demo:", "keep": "file"} if method == "POST" else None
    reply = ask(site, f"/api/v1/sources/{name}", method, body, x_role="admin")
    assert reply.status in (400, 404)
    assert made.reloads == 0
    assert [found.name for found in path.parent.iterdir()] == ["site.yaml"]


@pytest.mark.parametrize(
    ("where", "body", "status"),
    [
        ("/api/v1/config/check", {}, 400),
        ("/api/v1/config/check", {"text": 1}, 400),
        ("/api/v1/config/check", [], 400),
        ("/api/v1/config/check", b"{", 400),
        ("/api/v1/reload", {"text": []}, 400),
        ("/api/v1/reload", {"digest": 1}, 400),
        ("/api/v1/sources/gate", [], 400),
        ("/api/v1/sources/gate", {"uri": "demo:", "keep": "ever"}, 400),
        ("/api/v1/sources/gate", {}, 409),
        ("/api/v1/sources/gate", {"uri": 1}, 409),
        ("/api/v1/sources/gate", {"uri": "demo:", "fps": {}}, 409),
        ("/api/v1/config/check", b'{"text": "' + b"#" * MAX_WEB_BODY_BYTES + b'"}', 413),
    ],
)
def test_what_is_no_request_is_refused(site: Site, made: Made, where: str, body: Any, status: int) -> None:
    reply = ask(site, where, "POST", body, x_role="admin")
    assert reply.status == status
    assert made.reloads == 0


def test_a_text_of_almost_all_that_a_body_may_have_is_checked(site: Site) -> None:
    room = MAX_WEB_BODY_BYTES - len(json.dumps({"text": TEXT.replace("\n", "\n")}))
    assert ask(site, "/api/v1/config/check", "POST", {"text": TEXT + "#" * room}).json["ok"]


def test_no_password_reaches_a_viewer(site: Site, path: Path) -> None:
    path.write_text(SECRETS)
    assert ask(site, "/api/v1/reload", "POST", {}, x_role="admin").status == 200
    body = {"text": SECRETS + "  bad: {uri: 'rtsp://u:anothersesame@h', max_fps: anothersesame}\n"}
    pages = [ask(site, "/api/v1/config"), ask(site, "/api/v1/config/check", "POST", body)]
    for reply in pages:
        assert reply.status == 200
        for secret in (b"hunter22", b"swordfish-77", b"oldsesame1", b"anothersesame"):
            assert secret not in reply.body


class Failing(NoDesk):
    """Refuses everything."""

    def __init__(self, error: EdgeinferError) -> None:
        self.error = error

    def reload(self, text: str | None = None, digest: str | None = None) -> Outcome:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoSuchSourceError("x"), 404, "unknown-source"),
        (BadNameError("x"), 400, "bad-name"),
        (BusyError("x"), 503, "busy"),
        (UnfinishedError("x"), 504, "unfinished"),
        (ChangedError("x"), 409, "changed"),
        (ConfigError("x"), 409, "refused"),
        (TemporaryError("x"), 503, "not-now"),
        (InputError("x"), 409, "failed"),
    ],
)
def test_every_refusal_has_its_status(error: EdgeinferError, status: int, code: str) -> None:
    with serving(views(config=Failing(error), access=Everybody("admin"))) as site:
        reply = ask(site, "/api/v1/reload", "POST", {})
        assert (reply.status, reply.error, reply.json["error"]["text"]) == (status, code, "x")
        assert ("retry-after" in reply.headers) == (status == 503)
