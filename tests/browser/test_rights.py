"""Who may look, and who may not: with a token, without one, with a wrong one, and from a page of somebody else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.browser import seen
from tests.browser.chromium import Browser
from tests.browser.conftest import Serve
from tests.browser.page import drawn, exists, wait_for_pictures
from tests.browser.serving import Daemon, wait_for

pytestmark = pytest.mark.slow

PRIVATE = (
    "/api/v1/status",
    "/api/v1/info",
    "/api/v1/model",
    "/api/v1/config",
    "/api/v1/events",
    "/api/v1/history",
    "/api/v1/events/stream",
    "/api/v1/sources/cam0/snapshot.jpg",
    "/api/v1/sources/cam0/stream.mjpg",
    "/metrics",
    "/openapi.json",
)
FOREIGN = "http://elsewhere.example"
ATTACK = """
const [address] = arguments, outcome = {};
outcome.read = await fetch(`${address}api/v1/status`).then(() => "read", () => "refused");
const form = { method: "POST", mode: "no-cors", body: "{}", headers: { "Content-Type": "text/plain" } };
await fetch(`${address}api/v1/reload`, form).catch(() => null);
outcome.picture = await new Promise((resolve) => {
  const image = new Image();
  image.onload = () => resolve("shown");
  image.onerror = () => resolve("refused");
  image.src = `${address}api/v1/sources/cam0/snapshot.jpg`;
});
outcome.live = await new Promise((resolve) => {
  const socket = new WebSocket(`${address.replace("http", "ws")}live?sources=cam0`);
  socket.onmessage = () => resolve("message");
  socket.onclose = () => resolve("refused");
});
outcome.frame = await new Promise((resolve) => {
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.onload = () => {
    try { resolve(frame.contentDocument === null ? "refused" : frame.contentDocument.body.innerHTML); }
    catch { resolve("refused"); }
  };
  frame.src = address;
});
return outcome;
"""


def web_token(*arguments: str) -> str:
    """What `edgeinfer web token` prints."""
    command = [sys.executable, "-m", "edgeinfer", "web", "token", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def new_token(file: Path, *options: str) -> str:
    """A token that the command line has made."""
    return web_token("new", "--file", str(file), *options)


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of somebody else's page, on this machine too."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><body>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def closed_with(daemon: Daemon, **settings: Any) -> int:
    """The code with which the live view sends somebody away, HTTP's or its own; 0 where it gives a message."""
    address = f"{daemon.url.replace('http', 'ws')}live?sources=cam0"
    try:
        with connect(address, proxy=None, **settings) as socket:
            socket.recv(60)
            return 0
    except InvalidStatus as refused:
        return int(refused.response.status_code)
    except ConnectionClosed as closed:
        return 0 if closed.rcvd is None else int(closed.rcvd.code)


def test_what_is_private_is_refused_without_a_token_and_to_other_origins(serve: Serve, tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens")
    daemon = serve(cameras=1, token=str(tmp_path / "tokens"))
    bearer = {"Authorization": f"Bearer {token}"}
    for path in PRIVATE:
        assert daemon.request("GET", path)[0] == 401, path
        assert daemon.request("GET", path, headers={"Authorization": "Bearer wrong"})[0] == 401, path
        assert daemon.request("GET", path, headers={**bearer, "Origin": FOREIGN})[0] == 403, path
    assert daemon.request("GET", "/api/v1/status", headers=bearer)[0] == 200
    assert daemon.request("GET", "/")[0] == 200
    assert closed_with(daemon) == 401
    assert closed_with(daemon, additional_headers=bearer, origin=FOREIGN) == 403
    assert closed_with(daemon, additional_headers=bearer) == 0
    assert daemon.request("POST", "/api/v1/reload", {}, bearer)[0] == 403  # this one may look only


def test_a_page_of_somebody_else_gets_nothing(serve: Serve, browser: Browser, stranger: str) -> None:
    daemon = serve(cameras=1)
    browser.open(stranger)
    outcome = browser.js(ATTACK, daemon.url)
    assert outcome == {"read": "refused", "picture": "refused", "live": "refused", "frame": "refused"}
    assert daemon.process.poll() is None


def sign_in(browser: Browser, token: str) -> None:
    field = browser.driver.find_element(By.CSS_SELECTOR, "dialog [name=token]")
    field.clear()
    field.send_keys(token, Keys.ENTER)


def test_login_wrong_login_and_logout(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens")
    daemon = serve(cameras=2, token=str(tmp_path / "tokens"))
    browser.open(daemon.url)
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    assert drawn(browser) == {}
    sign_in(browser, f"{token}x")
    wait_for(lambda: browser.text("[data-login-error]"), "what is wrong")
    assert exists(browser, "[data-login]")
    assert drawn(browser) == {}
    sign_in(browser, token)
    wait_for_pictures(browser, cameras=2, more=3)
    assert not exists(browser, "[data-login]")
    assert browser.text("[data-role]") == "viewer"
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert (
        browser.js("return document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)").count(
            token
        )
        == 0
    )
    browser.driver.refresh()
    wait_for_pictures(browser, cameras=2)
    browser.driver.find_element(By.CSS_SELECTOR, "[data-logout]").click()
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    assert drawn(browser) == {}
    kept = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    assert daemon.request("GET", "/api/v1/status", headers=kept)[0] == 401  # the session itself has ended
    assert browser.complaints() == []


def test_a_token_that_is_taken_back_ends_what_is_looked_at(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens", "--name", "laptop")
    new_token(tmp_path / "tokens", "--name", "other")
    daemon = serve(cameras=1, token=str(tmp_path / "tokens"))
    browser.open(daemon.url)
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    sign_in(browser, token)
    wait_for_pictures(browser, cameras=1, more=3)
    web_token("revoke", "laptop", "--file", str(tmp_path / "tokens"))
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    wait_for(lambda: drawn(browser) == {}, "no picture")
    assert daemon.request("GET", "/api/v1/status", headers={"Authorization": f"Bearer {token}"})[0] == 401


def test_the_page_over_tls(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    openssl = shutil.which("openssl") or pytest.skip("openssl is not installed: it makes the certificate")
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([openssl, *made, "-keyout", key, "-out", cert], check=True, capture_output=True)
    token = new_token(tmp_path / "tokens")
    tls = {"cert": str(cert), "key": str(key)}
    daemon = serve(cameras=2, token=str(tmp_path / "tokens"), tls=tls)
    assert daemon.url.startswith("https://")
    browser.open(daemon.url)
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    sign_in(browser, token)
    wait_for_pictures(browser, cameras=2)
    seen.watch(browser)
    pictures = seen.gather(browser, 20)
    assert [fault for each in pictures for fault in seen.faults(each, daemon.options(each.source))] == []
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    assert browser.complaints() == []


def test_who_guesses_has_to_wait(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens")
    daemon = serve(cameras=1, token=str(tmp_path / "tokens"))
    codes = [daemon.request("POST", "/login", {"token": "guess"})[0] for _ in range(6)]
    assert codes == [401] * 5 + [429]
    browser.open(daemon.url)
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    sign_in(browser, token)
    wait_for(lambda: browser.text("[data-login-error]"), "what is wrong")
    print(f"\n{browser.text('[data-login-error]')}")
    assert exists(browser, "[data-login]")
