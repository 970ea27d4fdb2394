"""`edgeinfer run --supervise`: a small parent that starts the daemon again where no systemd does.

It speaks systemd's own protocol with its child (sd_notify(3), over a socket that only this user can reach), so that the
daemon does the same under both.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.errors import TemporaryError
from edgeinfer.watchdog import early
from edgeinfer.watchdog.early import PARENT

FINAL = frozenset({0, 64, 66, 69, 78})
"""Exit codes after which starting again would not help, or was not asked for."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
SETTLED_S = 60.0
"""A run that lasted so long was a good one: the next wait is the first again."""
FROZEN_S = 10.0
"""A ready daemon is heard of several times in that time."""
ABORT_S = 2.0
"""For the stacks, between SIGABRT and SIGKILL."""
TICK_S = 0.2
_PR_SET_PDEATHSIG = 1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Times in seconds; see the constants."""

    first_wait_s: float = FIRST_WAIT_S
    longest_wait_s: float = LONGEST_WAIT_S
    settled_s: float = SETTLED_S
    frozen_s: float = FROZEN_S


class Supervisor:
    """Runs `argv` until it ends for good. Used from the main thread: it takes SIGINT, SIGTERM and SIGHUP."""

    def __init__(self, argv: Sequence[str], say: Say, limits: RestartPolicy = RestartPolicy()) -> None:
        self._argv, self._say, self._limits = argv, say, limits
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._wait_s = limits.first_wait_s

    def run(self) -> int:
        """Returns the exit code to end with: the child's, or 128 + its signal."""
        with tempfile.TemporaryDirectory(prefix="edgeinfer-") as folder:
            address = Path(folder) / "notify"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.bind(str(address))
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, self._pass_on)
                early.release()
                return self._loop(channel, {**os.environ, "NOTIFY_SOCKET": str(address), PARENT: str(os.getpid())})

    def _loop(self, channel: socket.socket, environ: Mapping[str, str]) -> int:
        while True:
            _messages(channel, 0.0)  # what the run before said last is not this one's word
            started = time.monotonic()
            code = self._run(channel, environ)
            if self._ending or code in FINAL:
                return code if code >= 0 else 128 - code
            if time.monotonic() - started > self._limits.settled_s:
                self._wait_s = self._limits.first_wait_s
            self._say(f"the daemon ended with {_how(code)}; starting it again in {self._wait_s:g} s")
            if not self._pause(self._wait_s):
                return code if code >= 0 else 128 - code
            self._wait_s = min(2 * self._wait_s, self._limits.longest_wait_s)

    def _run(self, channel: socket.socket, environ: Mapping[str, str]) -> int:
        """One life of the daemon. A machine without room for another process may have some later."""
        # A child begins with what its parent ignores: SIGHUP would end it before it can say what it does about that.
        previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            self._child = subprocess.Popen(self._argv, env=environ, start_new_session=True)  # noqa: S603 (ourselves)
        except OSError as error:
            self._say(f"the daemon can't be started: {error.strerror}")
            return TemporaryError.exit_code
        finally:
            signal.signal(signal.SIGHUP, previous)
        if self._ending:  # asked to while the child was being made
            self._child.send_signal(signal.SIGTERM)
        return self._watch(self._child, channel)

    def _watch(self, child: subprocess.Popen[bytes], channel: socket.socket) -> int:
        """Waits for the child's end, and brings it about where a ready child falls silent."""
        heard_s: float | None = None
        while child.poll() is None:
            for text in _messages(channel, TICK_S):
                heard_s = _heard(text, heard_s)
            if heard_s is not None and time.monotonic() - heard_s > self._limits.frozen_s:
                self._say(f"the daemon has not been heard of for {self._limits.frozen_s:g} s; ending it")
                _end(child)
                heard_s = None
        return child.returncode

    def _pause(self, seconds: float) -> bool:
        """Waits; false where a signal ended the wait."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._ending:
            time.sleep(min(TICK_S, max(0.0, until - time.monotonic())))
        return not self._ending

    def _pass_on(self, number: int, _frame: object) -> None:
        self._ending = self._ending or number != signal.SIGHUP
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def die_with_supervisor(environ: Mapping[str, str] = os.environ) -> None:
    """For the child: a SIGTERM comes when its supervisor dies, however that happens (PR_SET_PDEATHSIG, prctl(2))."""
    parent = environ.get(PARENT, "")
    if not parent.isdecimal():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)


def _heard(message: Sequence[str], before: float | None) -> float | None:
    """When the child was last heard of. It is not expected to be before it is ready, nor once it is ending."""
    if "STOPPING=1" in message:
        return None
    return time.monotonic() if before is not None or "READY=1" in message else None


def _messages(channel: socket.socket, timeout_s: float) -> list[list[str]]:
    """What has arrived, as lines, after waiting at most `timeout_s`."""
    found: list[list[str]] = []
    wait_s = timeout_s
    while select.select([channel], [], [], wait_s)[0] and len(found) < 100:
        found.append(channel.recv(65536).decode(errors="replace").splitlines())
        wait_s = 0.0
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGABRT prints the stacks; a process that was stopped must be continued for that. Then SIGKILL."""
    child.send_signal(signal.SIGABRT)
    child.send_signal(signal.SIGCONT)
    try:
        child.wait(ABORT_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
