"""Debian's Firefox without a screen, by WebDriver BiDi, which it speaks itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.browser.chromium import COMPLAINTS, EARLY

PATIENCE_S = 60
SETTINGS = {
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.aboutwelcome.enabled": False,
}


class Firefox:
    """One page of a running Firefox."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.console: list[str] = []
        self.call("session.new", capabilities={"alwaysMatch": {}})
        self.call("session.subscribe", events=["log.entryAdded"])
        self.call("script.addPreloadScript", functionDeclaration=f"() => {EARLY}")
        self._page = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method: str, **parameters: Any) -> Any:
        """A command and its result; warnings and errors that come meanwhile are kept in `console`."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(PATIENCE_S))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] in ("warn", "error"):
                self.console.append(str(answer["params"]["text"]))
            if answer.get("id") == self._number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Loads a page."""
        self.call("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def js(self, code: str, *arguments: Any) -> Any:
        """What `code`, the body of a function, returns in the page."""
        given = ", ".join(map(json.dumps, arguments))
        expression = f"(async function () {{ {code} }})({given}).then((value) => JSON.stringify(value ?? null))"
        target = {"context": self._page}
        answer = self.call("script.evaluate", expression=expression, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def complaints(self) -> list[str]:
        """What went against the page's policy, and errors that nobody caught."""
        found: list[str] = self.js(COMPLAINTS)
        return found


@contextmanager
def browsing(folder: Path) -> Iterator[Firefox]:
    """A Firefox for the time of a block. Skips the test where there is none."""
    binary = shutil.which("firefox-esr") or pytest.skip("firefox-esr is not installed")
    profile = folder / "firefox"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in SETTINGS.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [binary, "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(profile)]
    environment = {**os.environ, "HOME": str(folder)}
    said = folder / "firefox.log"
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        with connect(f"{_address(said)}/session", max_size=None, proxy=None) as connection:
            yield Firefox(connection)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _address(said: Path) -> str:
    """Where it can be spoken to, once it has said so."""
    until = time.monotonic() + PATIENCE_S
    while (found := re.search(r"WebDriver BiDi listening on (ws://\S+)", said.read_text(errors="replace"))) is None:
        assert time.monotonic() < until, said.read_text(errors="replace")
        time.sleep(0.05)
    return found[1]
