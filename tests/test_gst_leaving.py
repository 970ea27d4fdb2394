"""How GStreamer's processes end: in order, as long as that takes, and none stays for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgeinfer.errors import CameraError
from edgeinfer.flow.capture import Deadlines
from edgeinfer.sources import _gst_child, _gst_process, csi, gst
from edgeinfer.sources._gst_process import GstSource
from tests.capturing import Desk, capturing
from tests.conftest import need_gst

SLOW = Path(__file__).with_name("slow_camera.py")
STOP_S = 2.5
"""Longer than any other process may take."""


class Camera:
    """A camera that is slow, and the file that tells what happened to it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"

    def uri(self, element: str = "nvarguscamerasrc", **seconds: float) -> str:
        settings = " ".join(f"{name}-s={value:g}" for name, value in seconds.items())
        return f"gst:{element} log={self.log} {settings}"

    def open(self, element: str = "nvarguscamerasrc", **seconds: float) -> GstSource:
        return gst.open(self.uri(element, **seconds), gst.Options(python=str(SLOW)))

    @property
    def told(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    if need_gst() != "/usr/bin/python3":
        pytest.skip("the system's Python has no PyGObject")
    return Camera(tmp_path)


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_a_csi_camera_is_given_longer_than_another_source() -> None:
    assert csi.recipe("csi://0", csi.Options()).leave_s == 8
    argus = _gst_process.Recipe("gst", [([], f"nvarguscamerasrc ! nvvidconv ! {_gst_process.TO_SINK}")])
    other = _gst_process.Recipe("gst", [([], f"v4l2src ! {_gst_process.TO_SINK}")])
    assert (argus.leave_s, other.leave_s) == (8, 2)


@pytest.mark.slow
def test_a_camera_that_is_slow_to_stop_is_stopped_in_order_and_can_be_opened_again(camera: Camera) -> None:
    for _ in range(2):
        source = camera.open(stop=STOP_S)
        source.read()
        source.close()
        assert ended(source.pid)
    assert camera.told == ["open", "closed"] * 2


@pytest.mark.slow
def test_a_camera_is_stopped_in_order_after_an_error_of_its_pipeline(camera: Camera) -> None:
    source = gst.open(f"{camera.uri(stop=STOP_S)} ! identity error-after=3 ! queue", gst.Options(python=str(SLOW)))
    with pytest.raises(CameraError):  # noqa: PT012 (the fourth read, or a later one)
        for _ in range(100):
            source.read()
    source.close()
    assert camera.told == ["open", "closed"]


@pytest.mark.slow
def test_a_camera_that_hangs_when_it_is_stopped_is_ended(camera: Camera) -> None:
    source = camera.open("slowcamerasrc", stop=600)
    source.read()
    source.close()
    assert ended(source.pid)
    assert camera.told == ["open"]


@pytest.mark.slow
def test_a_camera_that_was_not_stopped_in_order_is_told_of(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a unit that may start nvargus-daemon again, and for people. Other cameras need nobody's help."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:{tmp_path}/other")
    for element, number, stuck in (
        ("slowcamerasrc", signal.SIGKILL, False),
        ("nvarguscamerasrc", signal.SIGTERM, False),
        ("nvarguscamerasrc", signal.SIGKILL, True),
    ):
        camera.log.unlink(missing_ok=True)
        source = camera.open(element)
        source.read()
        os.kill(source.pid, number)
        if number == signal.SIGTERM:
            wait_until(lambda pid=source.pid: ended(pid), "it goes on")  # type: ignore[misc]
        source.close()
        assert (tmp_path / "argus-stuck").exists() is stuck
    (warning,) = caplog.messages
    assert "systemctl restart nvargus-daemon" in warning


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT])
def test_a_signal_to_all_processes_of_the_service_stops_a_camera_in_order(camera: Camera, number: int) -> None:
    """Also where the parent hangs, and neither reads nor ends the talk."""
    source = camera.open(stop=STOP_S)
    source.read()
    os.kill(source.pid, number)
    wait_until(lambda: ended(source.pid), "it goes on")
    assert camera.told == ["open", "closed"]
    source.close()


def test_a_parent_may_read_on_for_a_moment_after_a_signal_to_all(camera: Camera) -> None:
    source = camera.open()
    source.read()
    os.kill(source.pid, signal.SIGTERM)
    source.read()
    source.close()
    assert camera.told == ["open", "closed"]


DAEMON = """
import sys, time
from edgeinfer.sources import gst, _gst_process
_gst_process.LEAVE_S = 1
source = gst.open(sys.argv[1], gst.Options(python=sys.argv[2]))
source.read()
print(source.pid, flush=True)
time.sleep(600)
"""


def orphaned(uri: str) -> int:
    """The process of a source whose daemon has been killed."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, uri, str(SLOW)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    daemon.kill()
    daemon.communicate()
    return pid


@pytest.mark.slow
def test_a_camera_is_stopped_in_order_though_the_daemon_was_killed(camera: Camera) -> None:
    pid = orphaned(camera.uri(stop=STOP_S))
    wait_until(lambda: ended(pid), "it holds the camera although nobody reads it")
    assert camera.told == ["open", "closed"]


@pytest.mark.slow
def test_a_daemon_that_is_started_again_at_once_waits_for_the_camera(camera: Camera) -> None:
    orphaned(camera.uri(stop=STOP_S))
    source = camera.open()
    source.read()
    source.close()
    assert camera.told == ["open", "closed"] * 2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nvarguscamerasrc ! x", "nvargus-0"),
        ("nvarguscamerasrc sensor-mode=2 sensor-id=1 ! x", "nvargus-1"),
        ("v4l2src ! x", ""),
    ],
)
def test_whose_turn_it_is_counts_for_one_sensor(text: str, name: str) -> None:
    assert _gst_process.Recipe("gst", [([], text)]).alone.endswith(name)
    assert bool(_gst_process.Recipe("gst", [([], text)]).alone) is bool(name)


@pytest.mark.slow
def test_who_keeps_a_camera_for_ever_is_not_waited_for_for_ever() -> None:
    name = f"edgeinfer-test-{os.getpid()}"
    first = _gst_child.alone(name, 0, lambda: None)
    assert first is not None
    assert _gst_child.alone(name, 0.2, lambda: None) is None
    first.close()
    second = _gst_child.alone(name, 0, lambda: None)
    assert second is not None
    second.close()


@pytest.mark.slow
def test_a_process_that_hangs_when_its_daemon_was_killed_does_not_stay(camera: Camera) -> None:
    pid = orphaned(camera.uri("slowcamerasrc", stop=600))
    wait_until(lambda: ended(pid), "it stays for ever")


@pytest.mark.slow
def test_the_kernel_ends_a_call_that_never_comes_back() -> None:
    code = (
        f"import runpy; child = runpy.run_path({_gst_child.__file__!r})\n"
        "import ctypes\nwith child['within'](0.2): ctypes.PyDLL(None).pause()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGALRM


@pytest.mark.slow
def test_a_slow_start_is_waited_for_and_starting_says_why(camera: Camera) -> None:
    desk = Desk()
    limits = Deadlines(stall=0.3, timeout=1, first=1, grace=1, opening=60)
    why = _gst_process.start().why
    with capturing(desk, lambda: camera.open(start=4), limits, opening_why=why):
        desk.until(lambda: ("starting", "opening") in desk.states, "the reason")
        desk.until(desk.got(3), "frames")
    assert desk.books.state == "ended"
    assert not [state for state in desk.states if state[0] == "reconnecting"]


@pytest.mark.slow
def test_a_start_that_never_ends_is_given_up(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gst_process, "START_S", 1.0)
    monkeypatch.setattr(_gst_process, "MORE_S", 4.0)
    with pytest.raises(CameraError) as caught:
        camera.open("slowcamerasrc", start=600)
    assert caught.value.code == "hung"
    uri = "gst:appsrc is-live=false ! video/x-raw,format=BGR,width=64,height=48,framerate=10/1"
    with pytest.raises(CameraError, match="has not started within 1 s") as caught:
        gst.open(uri, gst.Options())
    assert caught.value.code == "timeout"
