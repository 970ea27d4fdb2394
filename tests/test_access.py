"""Who may do what: the rules of the page, without a network."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.guard.limits import LOGIN_TRIES
from edgeinfer.web.access import tokens
from edgeinfer.web.access.login import LIFE_S
from edgeinfer.web.access.rights import Access, Asked, Grant, Refusal, Welcome, open_access
from edgeinfer.web.access.tokens import PATIENCE_S, TokenList
from tests.test_access_login import Clock
from tests.test_zmq import wait_for

HOST = "127.0.0.1:9108"
STATUS = "/api/v1/status"
CHANGES = [
    ("POST", "/api/v1/reload"),
    ("POST", "/api/v1/sources/a"),
    ("DELETE", "/api/v1/sources/a"),
    ("PUT", "/whatever/comes"),
    ("PATCH", STATUS),
]
QUESTIONS = [
    ("GET", STATUS),
    ("HEAD", STATUS),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/api/v1/sources/a/snapshot.jpg"),
    ("GET", "/api/v1/sources/a/stream.mjpg"),
    ("GET", "/api/v1/events/stream"),
    ("POST", "/api/v1/config/check"),
    ("GET", "/whatever/comes"),
]
PUBLIC = ["/", "/healthz", "/readyz", "/login", "/logout", "/static/app.js", "/static/vendor/uPlot.js"]


class World:
    """An access with a viewer's token and an admin's, on a clock that the test moves."""

    def __init__(self, folder: Path, local: bool = True) -> None:
        self.path, self.clock = folder / "t", Clock()
        self.viewer, self.admin = (tokens.add(self.path, role)[1] for role in tokens.ROLES)
        self.list = TokenList(self.path, self.clock)
        self.access = Access(local, self.list, clock=self.clock)
        self.access.port = 9108

    def ask(self, method: str = "GET", path: str = STATUS, **headers: str) -> Grant | Refusal:
        return self.access.grant(asked(method, path, **headers))

    def log_in(self, secret: str, **headers: str) -> Welcome:
        found = self.access.login(asked("POST", "/login", **headers), secret)
        assert isinstance(found, Welcome)
        return found


def asked(method: str = "GET", path: str = STATUS, **headers: str) -> Asked:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"content-type": "application/json"} if method == "POST" else {}
    return Asked(method, path, "192.0.2.1", {"host": HOST, **kind, **named})


def websocket(path: str = "/live", **headers: str) -> Asked:
    return replace(asked(path=path, **headers), websocket=True)


def status(found: Grant | Refusal | Welcome) -> int:
    return found.status if isinstance(found, Refusal) else 200


def cookie(welcome: Welcome) -> str:
    return welcome.cookie.partition(";")[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_on_this_machine_everybody_may_look_where_there_are_no_tokens(method: str, path: str) -> None:
    assert Access(local=True).grant(asked(method, path)) == Grant("local")


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_without_tokens_nobody_changes_anything_and_is_told_how_to(method: str, path: str) -> None:
    found = Access(local=True).grant(asked(method, path))
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (403, "forbidden")
    assert "edgeinfer web token new --admin" in found.hint


@pytest.mark.parametrize("local", [True, False])
def test_without_tokens_a_bearer_makes_nobody_an_admin(local: bool) -> None:
    found = Access(local).grant(asked("POST", "/api/v1/reload", authorization=f"Bearer {tokens.mint()}"))
    assert status(found) == 403


@pytest.mark.parametrize(("method", "path"), QUESTIONS + CHANGES)
def test_with_tokens_nothing_goes_without_one(world: World, method: str, path: str) -> None:
    found = world.ask(method, path)
    assert isinstance(found, Refusal)
    assert (found.status, found.code, found.close) == (401, "unauthorized", 4401)
    assert found.headers == {"WWW-Authenticate": "Bearer"}
    wrong = world.ask(method, path, authorization=f"Bearer {tokens.mint()}")
    assert isinstance(wrong, Refusal)
    assert (wrong.status, wrong.code) == (401, "wrong-token")
    assert status(world.access.grant(websocket())) == 401
    assert status(world.access.grant(websocket("/"))) == 401


@pytest.mark.parametrize("path", PUBLIC)
def test_what_is_public_needs_no_token_and_takes_a_wrong_one(world: World, path: str) -> None:
    assert world.ask("GET", path) == Grant("nobody")
    assert world.ask("GET", path, authorization="Bearer x") == Grant("nobody")
    found = world.ask("GET", path, authorization=f"Bearer {world.viewer}")
    assert isinstance(found, Grant)
    assert found.role == "viewer"


@pytest.mark.parametrize(
    "path",
    ["", "//", "/healthz/", "//healthz", "/static", "/Static/x", "/statics/x", "/login/x", "/index.html", "/./healthz"],
)
def test_what_is_nearly_public_is_not(world: World, path: str) -> None:
    assert status(world.ask("GET", path)) == 401


@given(st.text(max_size=50), st.sampled_from(["GET", "POST", "DELETE", "OPTIONS", "BREW"]))
def test_any_other_path_needs_a_token(path: str, method: str) -> None:
    closed = Access(local=True, tokens=Closed())
    assert status(closed.grant(asked(method, f"/x{path}"))) == 401


class Closed(TokenList):
    """A list without tokens and without a file."""

    def __init__(self) -> None:
        self._tokens, self._looked_s, self._clock = {}, 0.0, Clock()


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_who_has_a_token_may_look(world: World, method: str, path: str, role: Any) -> None:
    found = world.ask(method, path, authorization=f"Bearer {getattr(world, role)}")
    assert isinstance(found, Grant)
    assert (found.role, found.is_admin) == (role, role == "admin")


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_only_an_admin_changes_things(world: World, method: str, path: str) -> None:
    found = world.ask(method, path, authorization=f"Bearer {world.viewer}")
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (403, "forbidden")
    assert "'viewer'" in found.text
    assert status(world.ask(method, path, authorization=f"Bearer {world.admin}")) == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_bearers_scheme_has_any_case(world: World, scheme: str) -> None:
    assert status(world.ask(authorization=f"{scheme} {world.viewer}")) == 200
    assert status(world.ask(authorization=f"{scheme}  {world.viewer} ")) == 200


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        "Basic {}",
        "Token {}",
        "Bearer",
        "Bearer{}",
        "Bearer {} x",
        "Bearer {}, Bearer {}",
        "Bearer {}\n{}",
        "é {}",
    ],
)
def test_what_is_no_bearer(world: World, header: str) -> None:
    assert status(world.ask(authorization=header.replace("{}", world.viewer))) == 401


@pytest.mark.parametrize("path", [f"{STATUS}?token={{}}", f"{STATUS}?access_token={{}}", "/{}", f"{STATUS}/{{}}"])
def test_a_token_in_the_address_is_none(world: World, path: str) -> None:
    assert status(world.ask("GET", path.format(world.admin))) == 401


def test_a_token_as_a_cookie_is_none(world: World) -> None:
    assert status(world.ask(cookie=f"{world.access.cookie_name}={world.admin}")) == 401


def test_a_very_long_header_is_no_token(world: World) -> None:
    for text in ("x" * 10_000_000, f"{world.viewer}{'x' * 10_000_000}", "é" * 5_000_000, "; " * 5_000_000):
        assert status(world.ask(authorization=f"Bearer {text}")) == 401
        assert status(world.ask(cookie=f"{world.access.cookie_name}={text}")) == 401
        assert status(world.ask(host=text)) == 421
        assert status(world.ask(origin=text)) == 403


# Log in and out


def test_a_session_is_as_good_as_its_token(world: World) -> None:
    for role, secret in (("viewer", world.viewer), ("admin", world.admin)):
        found = world.ask(cookie=f"a=b; {cookie(world.log_in(secret))}; c=d")
        assert isinstance(found, Grant)
        assert found.role == role
    assert status(world.ask("POST", "/api/v1/reload", cookie=cookie(world.log_in(world.admin)))) == 200
    assert status(world.ask("POST", "/api/v1/reload", cookie=cookie(world.log_in(world.viewer)))) == 403


def test_the_cookie_is_kept_from_scripts_and_other_sites(world: World) -> None:
    found = world.log_in(world.viewer)
    assert found.cookie.partition("; ")[2] == f"Max-Age={LIFE_S}; Path=/; HttpOnly; SameSite=Strict"
    assert world.viewer not in found.cookie
    assert cookie(found).startswith("edgeinfer_session_9108=eis_")
    assert "eis_" not in repr(found)


def test_two_servers_on_one_host_have_a_cookie_each(world: World, tmp_path: Path) -> None:
    """A browser has the same cookies for all ports of a host."""
    other = Access(True, world.list)
    other.port = 9109
    assert other.cookie_name != world.access.cookie_name
    found = world.log_in(world.viewer)
    assert status(other.grant(asked(cookie=cookie(found)))) == 401
    assert status(other.grant(asked(cookie=cookie(found).replace("9108", "9109")))) == 401


def test_a_logout_ends_the_session_for_good(world: World) -> None:
    found = world.log_in(world.viewer)
    gone = world.access.logout(asked("POST", "/logout", cookie=cookie(found)))
    assert gone.startswith("edgeinfer_session_9108=; Max-Age=0; ")
    assert status(world.ask(cookie=cookie(found))) == 401
    assert not world.access.still(found.grant)
    assert world.access.logout(asked("POST", "/logout")) == gone


def test_a_session_that_somebody_has_planted_is_not_taken_over(world: World) -> None:
    """Fixation: whatever cookie the browser had before, it has another one after it has logged in."""
    planted = f"{world.access.cookie_name}=eis_{'p' * 43}"
    found = world.log_in(world.admin, cookie=planted)
    assert planted not in found.cookie
    assert status(world.ask(cookie=planted)) == 401
    again = world.log_in(world.viewer, cookie=cookie(found))
    assert status(world.ask(cookie=cookie(found))) == 401, "the session before has ended"
    assert status(world.ask(cookie=cookie(again))) == 200


def test_cookies_that_another_server_has_set_do_not_hide_ours(world: World) -> None:
    planted = f"{world.access.cookie_name}=eis_{'p' * 43}"
    ours = cookie(world.log_in(world.viewer))
    assert status(world.ask(cookie=f"{planted}; {ours}")) == 200


def test_a_session_ends_with_its_token(world: World) -> None:
    found = world.log_in(world.viewer)
    assert world.access.still(found.grant)
    tokens.revoke(world.path, "viewer")
    world.list.refresh()
    assert not world.access.still(found.grant)
    assert status(world.ask(cookie=cookie(found))) == 401
    tokens.add(world.path, "viewer")
    world.list.refresh()
    assert status(world.ask(cookie=cookie(found))) == 401, "another token of the same name"


def test_what_was_opened_with_a_token_ends_with_it(world: World) -> None:
    grants = {role: world.ask(authorization=f"Bearer {getattr(world, role)}") for role in tokens.ROLES}
    tokens.revoke(world.path, "viewer")
    world.list.refresh()
    for role, grant in grants.items():
        assert isinstance(grant, Grant)
        assert world.access.still(grant) == (role == "admin")


def test_what_is_open_ends_after_twelve_hours(world: World) -> None:
    found = world.log_in(world.viewer)
    world.clock.now_s += LIFE_S
    world.list.refresh()
    assert not world.access.still(found.grant)


def test_while_the_file_can_not_be_read_nothing_goes_on(world: World) -> None:
    found = world.log_in(world.viewer)
    world.clock.now_s += PATIENCE_S + 1
    assert not world.access.still(found.grant)
    assert status(world.ask(authorization=f"Bearer {world.admin}")) == 401
    assert world.ask("GET", "/healthz") == Grant("nobody")
    world.list.refresh()
    assert world.access.still(found.grant), "and then it does"


def test_what_is_local_or_public_holds() -> None:
    assert Access(local=True).still(Grant("local"))
    assert not Access(local=True, tokens=Closed()).still(Grant("local"))
    assert Access(local=True, tokens=Closed()).still(Grant("nobody"))


@pytest.mark.parametrize("secret", ["{}\n", " {} ", "\t{}\r\n"])
def test_a_token_that_was_pasted_with_its_line_feed(world: World, secret: str) -> None:
    assert world.log_in(secret.format(world.viewer)).grant.role == "viewer"


@pytest.mark.parametrize("secret", ["", "x", "{}x", "x{}", "{}\n{}", "{}\0", "\ud800", "é" * 100, "x" * 1_000_000])
def test_wrong_tokens(world: World, secret: str) -> None:
    found = world.access.login(asked("POST", "/login"), secret.replace("{}", world.viewer))
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (401, "wrong-token")


def test_after_five_wrong_tokens_a_right_one_has_to_wait_too(world: World) -> None:
    for _ in range(LOGIN_TRIES):
        assert status(world.access.login(asked("POST", "/login"), tokens.mint())) == 401
    found = world.access.login(asked("POST", "/login"), world.viewer)
    assert isinstance(found, Refusal)
    assert (found.status, found.retry_after_s, found.headers) == (429, 60, {"Retry-After": "60"})
    assert status(world.ask(authorization=f"Bearer {world.viewer}")) == 200, "programs go on"
    world.clock.now_s += 60
    world.list.refresh()
    assert world.log_in(world.viewer).grant.role == "viewer"


def test_without_tokens_there_is_nothing_to_log_in_to() -> None:
    found = Access(local=True).login(asked("POST", "/login"), tokens.mint())
    assert isinstance(found, Refusal)
    assert found.status == 409
    assert "edgeinfer web token new" in found.hint


def test_a_flood_of_wrong_tokens_costs_little_and_fills_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    secret = tokens.mint()
    for _ in range(2000):
        world.ask(authorization=f"Bearer {secret}")
        world.access.login(asked("POST", "/login"), secret)
    assert 0 < len(caplog.records) <= 10
    world.access.close()
    assert caplog.messages[-1].startswith("wrong tokens: … and 1,995 more")
    assert len(world.access._sessions._open) == 0


def test_no_log_line_shows_a_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = tokens.mint()
    world.access.login(asked("POST", "/login"), wrong)
    found = world.log_in(world.admin)
    assert "admin (admin) has logged in from 192.0.2.1" in caplog.text
    for secret in (wrong, world.admin, cookie(found).partition("=")[2]):
        assert secret not in caplog.text


# Pages of others


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "localhost."}, 421),
        ({"host": ""}, 0),
        ({"host": "localhost:9108"}, 0),
        ({"host": "[::1]:1"}, 0),
        ({"origin": f"http://{HOST}"}, 0),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://127.0.0.1:9109"}, 403),
        ({"origin": f"https://{HOST}"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"host": "", "origin": f"http://{HOST}"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"origin": f"http://{HOST}, http://evil.example"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}, 403),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, 0),
        ({"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"}, 0),
    ],
)
@pytest.mark.parametrize("path", [STATUS, "/", "/healthz", "/static/app.js"])
def test_what_another_page_asks_for_is_refused_whoever_may(
    world: World, headers: dict[str, str], refused: int, path: str
) -> None:
    for access in (world.access, Access(local=True)):
        found = access.grant(asked(path=path, authorization=f"Bearer {world.admin}", **headers))
        assert status(found) == (refused or 200)
        if isinstance(found, Refusal):
            assert found.close == 4403


def test_a_websocket_of_another_page_is_refused(world: World) -> None:
    for access in (world.access, Access(local=True)):
        for origin, refused in (("http://evil.example", 403), ("null", 403), (f"http://{HOST}", 200)):
            headers = {"authorization": f"Bearer {world.viewer}", "origin": origin}
            assert status(access.grant(websocket(**headers))) == refused


def test_what_can_be_reached_from_elsewhere_has_any_name(tmp_path: Path) -> None:
    """A page that has its own name point here gets no further than TLS, and the browser has no cookie for it."""
    world = World(tmp_path, local=False)
    for host in ("cam.example", "cam.example:9108", "192.0.2.7", ""):
        assert status(world.ask(host=host, authorization=f"Bearer {world.viewer}")) == 200
    for host in ("cam.example/", "me@cam.example", "cam.example, x", "cam.example."):
        assert status(world.ask(host=host, authorization=f"Bearer {world.viewer}")) == 421
    assert status(world.ask(host="cam.example", origin="http://evil.example")) == 403


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("application/json", 0),
        ("Application/JSON; charset=utf-8", 0),
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("text/plain; application/json", 415),
        ("application/json, text/plain", 415),
        ("application/jsonx", 415),
    ],
)
@pytest.mark.parametrize("path", ["/login", "/logout", "/api/v1/reload", "/api/v1/config/check"])
def test_a_post_that_a_form_could_send_is_refused(world: World, kind: str, refused: int, path: str) -> None:
    found = world.ask("POST", path, authorization=f"Bearer {world.admin}", content_type=kind)
    assert status(found) == (refused or 200)


@given(st.dictionaries(st.sampled_from(["host", "origin", "authorization", "cookie", "content_type"]), st.text()))
def test_whatever_is_sent_is_answered_and_lets_nobody_in(headers: dict[str, str]) -> None:
    access = Access(local=True, tokens=Closed())
    found = access.grant(asked("POST", "/api/v1/reload", **headers))
    assert isinstance(found, Refusal)
    assert found.status in (401, 403, 415, 421)
    assert found.text


@pytest.mark.slow
def test_a_token_that_is_revoked_is_noticed_by_itself(tmp_path: Path) -> None:
    secret = tokens.add(tmp_path / "t", "viewer")[1]
    access = open_access(True, str(tmp_path / "t"), None)
    access.start()
    grant = access.grant(asked(authorization=f"Bearer {secret}"))
    assert isinstance(grant, Grant)
    tokens.revoke(tmp_path / "t", "viewer")
    wait_for(lambda: not access.still(grant), "the look at the file")
    access.close()
