"""`edgeinfer run --supervise`: what it starts again, what it leaves alone, and how it ends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from edgeinfer.client import Subscriber
from edgeinfer.messages import DetectionsMessage
from edgeinfer.watchdog import supervisor as module
from edgeinfer.watchdog.early import PARENT
from edgeinfer.watchdog.supervisor import RestartPolicy, Supervisor

ROOT = Path(__file__).parent.parent
Start = Callable[..., "subprocess.Popen[str]"]
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


# On a clock that passes when the supervisor waits, with children that are only told of


@dataclass
class Life:
    """A child's: `code` is how it ends after `seconds`; `says` is what it sends, at which second of its life.

    `deaf` ones do not end when they are asked to, nor by SIGABRT; others end with `stopped` then.
    """

    code: int = 0
    seconds: float = 1.0
    says: Sequence[tuple[float, str]] = ()
    deaf: bool = False
    stopped: int = 0


class World:
    """Everything around a supervisor: its clock, its children, its socket and the signals that come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lives: Life) -> None:
        self.now = 1000.0
        self.lives = list(lives)
        self.children: list[Child] = []
        self.said: list[str] = []
        self.waits: list[float] = []
        self.at: list[tuple[float, Callable[[], None]]] = []
        self.left_over: list[str] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(subprocess, "Popen", self.start)
        monkeypatch.setattr(module, "_messages", self.messages)

    def run(self, limits: RestartPolicy) -> int:
        self.supervisor = Supervisor(["edgeinfer"], self.said.append, limits)
        return self.supervisor._loop(None, {})  # type: ignore[arg-type]

    def start(self, argv: Sequence[str], **_: object) -> Child:
        self.children.append(Child(self, self.lives.pop(0)))
        return self.children[-1]

    def starts(self) -> list[float]:
        """When each child was started, in seconds after the first."""
        return [child.started - self.children[0].started for child in self.children]

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.at and self.at[0][0] <= self.now:
            self.at.pop(0)[1]()

    def messages(self, _: object, timeout_s: float) -> list[list[str]]:
        arrived = self.left_over
        self.left_over = []
        if self.children:
            arrived += self.children[-1].heard()
        if not arrived:
            self.sleep(timeout_s)
        return [text.split() for text in arrived]


class Child:
    def __init__(self, world: World, life: Life) -> None:
        self.world, self.life = world, life
        self.started = world.now
        self.signals: list[int] = []
        self.returncode: int | None = None
        self._told = 0.0

    @property
    def age(self) -> float:
        return self.world.now - self.started

    def poll(self) -> int | None:
        if self.returncode is None and self.age >= self.life.seconds:
            self.returncode = self.life.code
            self.world.left_over = [text for at, text in self.life.says if at > self.life.seconds]
        return self.returncode

    def heard(self) -> list[str]:
        since, self._told = self._told, self.age
        return [text for at, text in self.life.says if since <= at < self._told and at <= self.life.seconds]

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGTERM and not self.life.deaf:
            self.returncode = self.life.stopped

    def wait(self, timeout: float) -> int:
        if self.life.deaf:
            self.world.now += timeout
            raise subprocess.TimeoutExpired("edgeinfer", timeout)
        if signal.SIGCONT in self.signals:  # a process that was stopped does not get its SIGABRT before
            self.returncode = -signal.SIGABRT
        return self.returncode or 0

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.returncode = -signal.SIGKILL


POLICY = RestartPolicy(first_wait_s=1, longest_wait_s=4, settled_s=60, frozen_s=10)


@pytest.mark.parametrize("code", [0, 64, 66, 69, 78])
def test_what_would_not_help_is_not_tried(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    world = World(monkeypatch, Life(code))
    assert world.run(POLICY) == code
    assert (len(world.children), world.said) == (1, [])


@pytest.mark.parametrize("code", [1, 65, 70, 75, 77, -9, -11])
def test_whatever_else_ends_it_is_tried_again(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    world = World(monkeypatch, Life(code), Life(0))
    assert world.run(POLICY) == 0
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    assert world.said == [f"the daemon ended with {how}; starting it again in 1 s"]


def test_waits_double_up_to_the_longest_and_a_good_run_makes_them_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = [Life(70, 1)] * 4 + [Life(70, 61), Life(70, 59), Life(0)]
    world = World(monkeypatch, *lives)
    world.run(POLICY)
    assert [line.split()[-2] for line in world.said] == ["1", "2", "4", "4", "1", "2"]
    began = world.starts()
    ran = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert ran == pytest.approx([1 + 1, 1 + 2, 1 + 4, 1 + 4, 61 + 1, 59 + 2], abs=0.5), "and it does wait"


def test_a_child_that_falls_silent_is_ended_with_its_stacks_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Life(70, 1e9, [(0, "READY=1"), (5, "WATCHDOG=1")])
    world = World(monkeypatch, silent, Life(0))
    assert world.run(POLICY) == 0
    assert world.children[0].signals == [signal.SIGABRT, signal.SIGCONT]
    assert world.said[0] == "the daemon has not been heard of for 10 s; ending it"
    assert world.starts()[1] == pytest.approx(5 + 10 + 1, abs=1)


def test_one_that_does_not_end_by_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Life(70, 1e9, [(0, "READY=1")], deaf=True), Life(0))
    assert world.run(POLICY) == 0
    assert world.children[0].signals == [signal.SIGABRT, signal.SIGCONT, signal.SIGKILL]
    assert "SIGKILL" in world.said[1]


@pytest.mark.parametrize(
    "says",
    [
        [(1.0, "STATUS=loading"), (2.0, "WATCHDOG=1")],
        [(0.0, "READY=1"), (3.0, "STOPPING=1")],
        [(0.0, "READY=1"), (3.0, "STOPPING=1"), (4.0, "WATCHDOG=1")],
        [(number * 9.0, "READY=1" if number == 0 else "WATCHDOG=1") for number in range(14)],
    ],
    ids=["starting", "ending", "ending for long", "alive"],
)
def test_one_that_starts_or_ends_or_lives_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, says: list[tuple[float, str]]
) -> None:
    world = World(monkeypatch, Life(0, 120, says))
    assert world.run(POLICY) == 0
    assert (world.children[0].signals, world.said) == ([], [])


def test_what_a_child_said_last_is_not_taken_for_the_word_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It died before its READY was read; the next one takes its time to load."""
    world = World(monkeypatch, Life(70, 1, [(1.1, "READY=1")]), Life(0, 60))
    assert world.run(POLICY) == 0
    assert world.children[1].signals == []


@pytest.mark.parametrize(("stopped", "told"), [(0, 0), (70, 70), (-signal.SIGTERM, 143)])
def test_a_signal_goes_to_the_child_and_nothing_is_started_again(
    monkeypatch: pytest.MonkeyPatch, stopped: int, told: int
) -> None:
    world = World(monkeypatch, Life(70, 1e9, stopped=stopped))
    world.at = [(1005.0, lambda: world.supervisor._pass_on(signal.SIGTERM, None))]
    assert world.run(POLICY) == told
    assert world.children[0].signals == [signal.SIGTERM]
    assert (len(world.children), world.said) == (1, [])


def test_a_hangup_goes_to_the_child_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, Life(70, 10), Life(0))
    world.at = [(1005.0, lambda: world.supervisor._pass_on(signal.SIGHUP, None))]
    assert world.run(POLICY) == 0
    assert [child.signals for child in world.children] == [[signal.SIGHUP], []]


@pytest.mark.parametrize(("code", "told"), [(70, 70), (-9, 137)])
def test_a_signal_ends_the_wait_with_the_code_of_the_child_that_was(
    monkeypatch: pytest.MonkeyPatch, code: int, told: int
) -> None:
    world = World(monkeypatch, Life(code, 1))
    policy = RestartPolicy(first_wait_s=30, longest_wait_s=30, settled_s=60, frozen_s=10)
    world.at = [(1003.0, lambda: world.supervisor._pass_on(signal.SIGTERM, None))]
    assert world.run(policy) == told
    assert world.now < 1005, "it waited to the end"
    assert world.children[0].signals == [], "it has gone already"


# With real children


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 64, 66, 69, 78])
def test_what_would_not_help_is_not_done(tmp_path: Path, code: int) -> None:
    assert supervise(tmp_path, f"sys.exit({code})") == (code, 1, [])


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_frozen_child_is_killed_and_started_again(tmp_path: Path) -> None:
    body = "notify('READY=1')\nif number == 1: os.kill(os.getpid(), signal.SIGSTOP)\nsys.exit(0)"
    code, runs, said = supervise(tmp_path, body)
    assert (code, runs) == (0, 2)
    assert said[0] == "the daemon has not been heard of for 1 s; ending it"
    assert "SIGABRT" in said[1]


@pytest.mark.slow
def test_a_child_that_ignores_sigabrt_is_killed(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGABRT, signal.SIG_IGN)\nnotify('READY=1')\nif number == 1: time.sleep(60)\nsys.exit(0)"
    )
    code, runs, said = supervise(tmp_path, body)
    assert (code, runs) == (0, 2)
    assert "SIGKILL" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["pass", "notify('READY=1')\nnotify('STOPPING=1')"])
def test_a_child_that_is_starting_or_ending_may_be_silent(tmp_path: Path, first: str) -> None:
    assert supervise(tmp_path, f"{first}\ntime.sleep(2.5)\nsys.exit(0)") == (0, 1, [])


@pytest.mark.slow
def test_a_child_that_beats_is_left_alone(tmp_path: Path) -> None:
    body = "notify('READY=1')\nfor _ in range(20):\n  time.sleep(0.2)\n  notify('WATCHDOG=1')\nsys.exit(0)"
    assert supervise(tmp_path, body, RestartPolicy(frozen_s=3)) == (0, 1, [])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_daemon_does_not_outlive_its_supervisor(daemon_process: Start, ipc: str) -> None:
    parent = daemon_process("run", "--supervise", "--source", "demo:", "--bind", ipc)
    session_of(ipc)
    (child,) = psutil.Process(parent.pid).children()
    assert PARENT in child.environ()
    parent.kill()
    wait_for(
        lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the daemon outlived its supervisor"
    )


@pytest.mark.slow
def test_a_wrong_command_line_is_told_once(daemon_process: Start) -> None:
    parent = daemon_process("run", "--supervise", "--source", "demo:", "--backend", "tpu")
    _, stderr = parent.communicate(timeout=60)
    assert parent.returncode == 78
    assert stderr.count("no backend called 'tpu'") == 1
