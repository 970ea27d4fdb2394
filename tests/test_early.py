"""The first moments of a run: signals that come before anybody can answer them wait, and are answered then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer.watchdog import early
from edgeinfer.watchdog.supervisor import RestartPolicy, Supervisor

START = """
import os, signal, sys
from edgeinfer.watchdog import early
sys.argv = ["edgeinfer", *{args!r}]
early.hold(sys.argv[1:])
os.kill(os.getpid(), {number})
from edgeinfer.cli import main
main()
"""
"""What `edgeinfer.__main__` does, with a signal right after its first line."""


def start(number: int, *args: str) -> subprocess.CompletedProcess[str]:
    code = START.format(args=args, number=int(number))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_in_the_first_moment_of_a_run(name: str, tmp_path: Path) -> None:
    lines = str(tmp_path / "out.jsonl")
    ends = name in ("SIGTERM", "SIGINT")
    more = ("--set", "publish=null", *(() if ends else ("--frames", "2")))
    process = start(signal.Signals[name], "run", "--source", "demo:", "--jsonl", lines, *more)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert ends or len(Path(lines).read_text().splitlines()) == 2


@pytest.mark.slow
def test_an_interrupt_while_another_command_is_being_imported() -> None:
    process = start(signal.SIGINT, "models", "ls")
    assert (process.returncode, process.stderr) == (130, "")


@pytest.mark.parametrize("args", [["run", "--source", "demo:"], ["listen"], []])
def test_only_a_daemon_holds_what_would_end_it(args: list[str]) -> None:
    code = (
        "import signal\nfrom edgeinfer.watchdog import early\n"
        f"early.hold({args!r})\nprint(sorted(n.name for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        "early.release()\nprint(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        "print(signal.getsignal(signal.SIGUSR1).name)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    daemon = args[:1] == ["run"]
    held = ["SIGHUP", "SIGINT", "SIGTERM"] if daemon else ["SIGINT"]
    assert process.stdout.splitlines() == [str(held), "[]", "SIG_IGN" if daemon else "SIG_DFL"]


def test_nothing_else_is_imported_before_signals_are_held() -> None:
    lines = (Path(early.__file__).parents[1] / "__main__.py").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith('"""')]
    assert code[:3] == ["import sys", "from edgeinfer.watchdog import early", "early.hold(sys.argv[1:])"]


@pytest.mark.slow
def test_a_supervisors_child_does_not_end_by_a_hangup_before_it_can_answer(tmp_path: Path) -> None:
    """The child hangs up on itself at once: a program that has no answer yet would end."""
    body = "import os, signal; os.kill(os.getpid(), signal.SIGHUP)"
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert Supervisor([sys.executable, "-c", body], print, RestartPolicy()).run() == 0
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN, "the supervisor itself goes on passing it on"
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_a_supervisor_that_is_ended_while_it_starts_a_child_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def interrupted(*args: object, **options: object) -> object:
        child = popen(*args, **options)  # type: ignore[call-overload] # (as it was called)
        os.kill(os.getpid(), signal.SIGTERM)
        return child

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        code = Supervisor([sys.executable, "-c", "import time; time.sleep(60)"], print, RestartPolicy()).run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert code == 128 + signal.SIGTERM
