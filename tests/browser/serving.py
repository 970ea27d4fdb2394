"""A real daemon with planted cameras and the page, as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

from tests.browser import finder, planted

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 30.0
T = TypeVar("T")
FPS = 10.0


class Daemon:
    """`edgeinfer run` with a configuration file in a folder, in which every camera has a folder of its own too."""

    def __init__(
        self,
        folder: Path,
        cameras: int = 2,
        fps: float = FPS,
        dead: Sequence[str] = (),
        sizes: Sequence[tuple[int, int]] = (),
        **http: Any,
    ) -> None:
        self.folder, self.path, self._said = folder, folder / "config.yaml", folder / "said"
        self.names = [f"cam{number}" for number in range(cameras)]
        self.config: dict[str, Any] = {
            "backend": finder.__name__,
            "publish": None,
            "sources": {name: self._camera(name, number, fps) for number, name in enumerate(self.names)},
            "http": {"bind": f"127.0.0.1:{_free_port()}", "web": True, **http},
        }
        for name, (width, height) in zip(self.names, sizes, strict=False):
            self.config["sources"][name].update(width=width, height=height)
        for name in dead:
            self.tell(name, "dead")
        self.write()
        self.start()

    def _camera(self, name: str, number: int, fps: float) -> dict[str, Any]:
        (self.folder / name).mkdir(exist_ok=True)
        return {"uri": f"{planted.__name__}://{self.folder / name}", "phase": number, "fps": fps}

    def write(self) -> None:
        """Writes the configuration's file."""
        self.path.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def start(self) -> None:
        """Starts it."""
        self._said.unlink(missing_ok=True)
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgeinfer", "run", "--config", str(self.path)],
                cwd=self.folder,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            )
        self.url = self._address()
        wait_for(lambda: self.request("GET", "/healthz")[0] == 200, "the daemon's health")

    def said(self) -> str:
        """What it has written."""
        return self._said.read_text(errors="replace")

    def _address(self) -> str:
        def told() -> str | None:
            assert self.process.poll() is None, self.said()
            found = re.search(r"page (https?://\S+)", self.said())
            return found[1] if found else None

        return wait_for(told, "the page's address")

    def options(self, name: str) -> planted.Options:
        """A camera's settings."""
        table = {key: value for key, value in self.config["sources"][name].items() if key != "uri"}
        return planted.Options(**table)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer. A body is sent as JSON."""
        address = urlsplit(self.url)
        connection = HTTPConnection(address.netloc, timeout=PATIENCE_S)
        if address.scheme == "https":
            connection = HTTPSConnection(address.netloc, timeout=PATIENCE_S, context=_trusting())
        try:
            given = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
            connection.request(method, path, None if body is None else json.dumps(body), given)
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def status(self, **headers: str) -> Any:
        """`/api/v1/status`."""
        code, _, body = self.request("GET", "/api/v1/status", headers=headers)
        assert code == 200, body
        return json.loads(body)

    def tell(self, name: str, word: str) -> None:
        """Has a camera be `frozen` or `dead`."""
        (self.folder / name / word).touch()

    def untell(self, name: str, word: str) -> None:
        """And no longer."""
        (self.folder / name / word).unlink()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """Ends it in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


def _trusting() -> ssl.SSLContext:
    """Certificates that tests make for themselves are signed by nobody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _free_port() -> int:
    """One that it can have again when it is started again, and that a reload does not change."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Daemon]:
    """A daemon for the time of a block."""
    daemon = Daemon(folder, **settings)
    try:
        yield daemon
    finally:
        daemon.stop()


def wait_for(condition: Callable[[], T | None], what: str, timeout_s: float = PATIENCE_S) -> T:
    """What the condition gives, once it gives something true."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        assert time.monotonic() < until, f"{what} did not come"
        time.sleep(0.05)
