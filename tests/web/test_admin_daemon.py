"""A whole daemon whose configuration is changed from outside, with tokens; and what is left when it is killed."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from edgeinfer.web.access import tokens
from tests.test_publisher import until
from tests.test_reload import SMALL, network

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[str]"]
LIVE = {**SMALL, "realtime": True, "fps": 20}


class Served:
    """A daemon with a page, an admin and a viewer."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.path, self.port, self.lines = folder / "site.yaml", 0, list[str]()
        made = folder / "web.tokens"
        self.tokens = {"admin": tokens.add(made, "admin")[1], "viewer": tokens.add(made, "viewer")[1]}
        self.path.write_text(
            yaml.safe_dump(
                {
                    "model": {"path": network(folder, "one", ["thing", "person"], [16, 14, 48, 50])},
                    "backend": {"name": "onnxruntime", "threads": 1},
                    "publish": None,
                    "http": {"bind": "127.0.0.1:0", "web": True, "token": str(made)},
                    "sources": {"a": LIVE},
                }
            )
        )
        self.process = start("run", "--config", str(self.path))
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self.port, f"the page's address is said: {self.lines}")
        until(lambda: self.ask("GET", "status")[1]["sources"]["a"]["state"] == "running", "it runs")

    def ask(self, method: str, path: str, body: Any = None, role: str = "admin") -> tuple[int, Any]:
        """The answer's status, and what it holds."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        try:
            with urlopen(Request(url, data, headers, method=method), timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"edgeinfer: page http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])


def test_a_whole_daemon_is_changed_from_outside(daemon_process: Start, tmp_path: Path) -> None:
    served = Served(tmp_path, daemon_process)
    _, config = served.ask("GET", "config?text=1")
    text = config["text"] + "  b:\n    uri: 'demo:'\n    width: 64\n    height: 64\n"
    assert "b" in yaml.safe_load(text)["sources"]
    assert served.ask("POST", "config/check", {"text": text}, "viewer")[1]["changes"] == ["sources.b: added"]
    assert served.ask("POST", "reload", {"text": text}, "viewer")[0] == 403
    status, outcome = served.ask("POST", "reload", {"text": text, "digest": config["digest"]})
    assert (status, outcome["changes"], served.path.read_text()) == (200, ["sources.b: added"], text)
    assert served.ask("POST", "sources/c", LIVE)[1]["changes"] == ["sources.c: added"]
    assert served.ask("POST", "sources/d", {**LIVE, "keep": "file"})[1]["changes"] == ["sources.d: added"]
    until(lambda: served.ask("GET", "status")[1]["sources"]["d"]["state"] == "running", "it runs")
    assert served.ask("DELETE", "sources/b")[1]["error"]["text"].startswith("b was not added here: it stands at ")
    bad = text.replace("publish: null", "publish: {}")
    assert served.ask("POST", "reload", {"text": bad})[1]["error"]["text"].startswith("publish: can't be changed")
    assert served.path.read_text() == text
    served.process.kill()
    served.process.wait(60)
    again = daemon_process("run", "--config", str(served.path), "--frames", "3")
    assert again.wait(120) == 0, "what was kept runs again"
    assert sorted(found.name for found in (tmp_path / "site.yaml.d").iterdir()) == ["api-d.yaml"]
