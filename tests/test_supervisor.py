"""`edgeinfer run --supervise`: what it starts again, what it leaves alone, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgeinfer.client import Subscriber
from edgeinfer.messages import DetectionsMessage
from edgeinfer.watchdog.supervisor import PARENT, RestartPolicy, Supervisor

ROOT = Path(__file__).parent.parent
Start = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.slow
QUICK = RestartPolicy(first_wait_s=0.05, longest_wait_s=0.2, settled_s=60, frozen_s=1)

SCRIPT = """
import os, pathlib, signal, socket, sys, time
runs = pathlib.Path(sys.argv[1])
number = int(runs.read_text() or 0) + 1 if runs.exists() else 1
runs.write_text(str(number))
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""


def supervise(tmp_path: Path, body: str, limits: RestartPolicy = QUICK) -> tuple[int, int, list[str]]:
    """Runs a child made of `body`. Returns the exit code, how often it ran, and what the supervisor said."""
    said: list[str] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        argv = [sys.executable, "-c", SCRIPT + body, str(tmp_path / "runs")]
        code = Supervisor(argv, said.append, limits).run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code, int((tmp_path / "runs").read_text()), said


@pytest.mark.parametrize("code", [0, 64, 66, 69, 78])
def test_what_would_not_help_is_not_done(tmp_path: Path, code: int) -> None:
    assert supervise(tmp_path, f"sys.exit({code})") == (code, 1, [])


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os._exit(70)", "exit code 70"),
        ("os._exit(75)", "exit code 75"),
        ("os._exit(1)", "exit code 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ],
)
def test_a_crash_is_started_again_more_and_more_slowly(tmp_path: Path, end: str, how: str) -> None:
    code, runs, said = supervise(tmp_path, f"if number < 5: {end}\nsys.exit(0)")
    assert (code, runs) == (0, 5)
    waits = ["0.05", "0.1", "0.2", "0.2"]
    assert said == [f"the daemon ended with {how}; starting it again in {wait} s" for wait in waits]


def test_a_frozen_child_is_killed_and_started_again(tmp_path: Path) -> None:
    body = "notify('READY=1')\nif number == 1: os.kill(os.getpid(), signal.SIGSTOP)\nsys.exit(0)"
    code, runs, said = supervise(tmp_path, body)
    assert (code, runs) == (0, 2)
    assert said[0] == "the daemon has not been heard of for 1 s; ending it"
    assert "SIGABRT" in said[1]


def test_a_child_that_ignores_sigabrt_is_killed(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGABRT, signal.SIG_IGN)\nnotify('READY=1')\nif number == 1: time.sleep(60)\nsys.exit(0)"
    )
    code, runs, said = supervise(tmp_path, body)
    assert (code, runs) == (0, 2)
    assert "SIGKILL" in said[1]


@pytest.mark.parametrize("first", ["pass", "notify('READY=1')\nnotify('STOPPING=1')"])
def test_a_child_that_is_starting_or_ending_may_be_silent(tmp_path: Path, first: str) -> None:
    assert supervise(tmp_path, f"{first}\ntime.sleep(2.5)\nsys.exit(0)") == (0, 1, [])


def test_a_child_that_beats_is_left_alone(tmp_path: Path) -> None:
    body = "notify('READY=1')\nfor _ in range(20):\n  time.sleep(0.2)\n  notify('WATCHDOG=1')\nsys.exit(0)"
    assert supervise(tmp_path, body, RestartPolicy(frozen_s=3)) == (0, 1, [])


def test_a_signal_ends_the_child_and_the_supervisor(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\ntime.sleep(60)"
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    code, runs, said = supervise(tmp_path, body)
    timer.join()
    assert (code, runs, said) in [(0, 1, []), (128 + signal.SIGTERM, 1, [])]


# The whole program


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def session_of(ipc: str, other_than: str = "") -> str:
    with Subscriber(ipc) as subscriber:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            message = subscriber.receive(1)
            if isinstance(message, DetectionsMessage) and message.session != other_than:
                return message.session
    raise AssertionError("no detections for 60 s")


def test_a_supervised_daemon_comes_back_and_ends_with_one_signal(daemon_process: Start, ipc: str) -> None:
    parent = daemon_process("run", "--supervise", "--source", "demo:", "--bind", ipc)
    session = session_of(ipc)
    (child,) = psutil.Process(parent.pid).children()
    child.kill()
    session_of(ipc, session)
    (child,) = psutil.Process(parent.pid).children()
    parent.terminate()
    _, stderr = parent.communicate(timeout=30)
    assert parent.returncode == 0
    assert "supervisor: the daemon ended with SIGKILL; starting it again in 0.5 s" in stderr
    assert not child.is_running()


def test_the_daemon_does_not_outlive_its_supervisor(daemon_process: Start, ipc: str) -> None:
    parent = daemon_process("run", "--supervise", "--source", "demo:", "--bind", ipc)
    session_of(ipc)
    (child,) = psutil.Process(parent.pid).children()
    assert PARENT in child.environ()
    parent.kill()
    wait_for(
        lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the daemon outlived its supervisor"
    )


def test_a_wrong_command_line_is_told_once(daemon_process: Start) -> None:
    parent = daemon_process("run", "--supervise", "--source", "demo:", "--backend", "tpu")
    _, stderr = parent.communicate(timeout=60)
    assert parent.returncode == 78
    assert stderr.count("no backend called 'tpu'") == 1
