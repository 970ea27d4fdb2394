"""The live view of a whole daemon: cameras that freeze, come and go, and its end with viewers connected."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from tests.browser.planted import truth
from tests.test_publisher import until
from tests.test_run import write_constant_network
from tests.web.test_picture_paths import decoded
from tests.web.watching import Viewer, viewing

pytestmark = pytest.mark.slow


class Running:
    """A daemon with planted cameras, and the address of its page."""

    def __init__(self, folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
        self.folder, self.port = folder, 0
        self.configure("a", "b")
        self.process = start("run", "--config", str(folder / "daemon.yaml"))
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self.port, f"the page's address is said: {self._lines}")

    def configure(self, *sources: str) -> None:
        """Writes the configuration with these cameras."""
        for source in sources:
            (self.folder / source).mkdir(exist_ok=True)
        config = {
            "model": {"path": str(self.folder / "tiny.onnx"), "card": str(self.folder / "tiny.yaml")},
            "sources": {
                name: {"uri": f"tests.browser.planted://{self.folder / name}", "stall_s": 1.0} for name in sources
            },
            "publish": None,
            "http": {"bind": "127.0.0.1:0", "web": True},
        }
        (self.folder / "daemon.yaml").write_text(yaml.safe_dump(config))

    def pictures_made(self) -> int:
        """For viewers so far."""
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/status", timeout=20) as answer:
            return int(json.load(answer)["daemon"]["http"]["pictures"])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            if found := re.search(r"page http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])


@pytest.fixture
def running(
    tmp_path: Path, daemon_process: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, cli: Any
) -> Running:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    write_constant_network(tmp_path / "tiny.onnx", batch=1)
    card = cli("models", "inspect", str(tmp_path / "tiny.onnx"), "--card")
    (tmp_path / "tiny.yaml").write_text(card.stdout)
    return Running(tmp_path, daemon_process)


def picture_of(viewer: Viewer, source: str) -> Any:
    """The next picture of a source."""
    while (seen := viewer.picture()).source != source:
        pass
    return seen


def test_a_daemons_cameras_are_seen_and_without_viewers_no_picture_is_made(running: Running) -> None:
    assert running.pictures_made() == 0
    with viewing(running) as viewer:
        for source in ("a", "b"):
            seen = picture_of(viewer, source)
            assert (seen.header["width"], seen.header["height"]) == (640, 360)
            assert truth(decoded(seen.jpeg)) is not None
    with viewing(running) as viewer:
        viewer.say(sources=[])
        made = running.pictures_made()
        viewer.until("status", source="a")
    assert running.pictures_made() <= made + 2, "but what was on its way"


def test_a_camera_that_freezes_is_told_of_and_no_old_picture_is_sent(running: Running) -> None:
    with viewing(running) as viewer:
        picture_of(viewer, "a")
        (running.folder / "a" / "frozen").touch()
        stalled = viewer.until("status", source="a", state="stalled")
        assert stalled.header["reason"]["code"]
        shown = {picture_of(viewer, "b").header["frame_id"] for _ in range(20)}
        assert len(shown) == 20, "the other one goes on"
        (running.folder / "a" / "frozen").unlink()
        told: list[str] = []
        while (seen := viewer.next()).source != "a" or seen.kind != "detections":
            told.append(str(seen.header.get("state", "")))
            viewer.drawn(seen.kind == "detections")
        assert "running" in told
        assert seen.header["t_capture_mono_ns"] > stalled.header["t_publish_mono_ns"]


def test_a_camera_that_is_removed_and_added_again_by_a_reload(running: Running) -> None:
    with viewing(running) as everything, viewing(running, "sources=a") as only_a:
        for viewer in (everything, only_a):
            picture_of(viewer, "a")
        running.configure("b")
        running.process.send_signal(signal.SIGHUP)
        for viewer in (everything, only_a):
            viewer.until("info", sources=["b"])
        with viewing(running, "sources=a") as late, pytest.raises(Exception, match="4404"):
            late.next()
        running.configure("a", "b")
        running.process.send_signal(signal.SIGHUP)
        for viewer in (everything, only_a):
            assert truth(decoded(picture_of(viewer, "a").jpeg)) is not None


def test_a_daemon_ends_at_once_with_viewers_connected(running: Running) -> None:
    with viewing(running) as viewer, viewing(running) as idle:
        picture_of(viewer, "a")
        idle.next()
        running.process.terminate()
        assert running.process.wait(20) == 0
    assert running.process.stderr is not None
    assert "Traceback" not in running.process.stderr.read()
