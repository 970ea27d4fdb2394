"""A program that talks as a source's process does: started, left in peace, ended whatever it does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from edgeinfer.isolation import talk

log = logging.getLogger(__name__)

LEAVE_S, KILL_S = 3.0, 2.0


@dataclass(frozen=True, slots=True)
class Spawned:
    """See `Process`. `leave_s`: so long it may take to end by itself, once nobody talks with it."""

    child: subprocess.Popen[bytes]
    peer: socket.socket
    leave_s: float = LEAVE_S

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.child.pid

    def end(self) -> str:
        """See `Process.end`. It leaves by itself when nobody talks with it, or is killed: SIGTERM would say no more."""
        self.peer.close()
        if (code := self._waited(self.leave_s)) is not None:
            return ended_how(code)
        with contextlib.suppress(ProcessLookupError):
            self.child.kill()
        if self._waited(KILL_S) is not None:
            return ""
        log.warning("process %d does not end, it hangs in the kernel", self.pid)
        return "it hangs in the kernel"

    def kill(self) -> None:
        """Ends it at once, with all of its group: what it has just forked may not be told yet to end with it."""
        self.peer.close()
        if self.child.returncode is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._waited(KILL_S)

    def _waited(self, timeout_s: float) -> int | None:
        try:
            return self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def spawn(command: Sequence[str], leave_s: float = LEAVE_S) -> Spawned:
    """Starts a program, with the number of its end of the talk as its last argument. Raises OSError."""
    ours, theirs = talk.pair()
    with theirs:
        try:
            child = subprocess.Popen(  # noqa: S603 (a program that the caller has chosen)
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries write whatever a camera makes them write
                start_new_session=True,  # Ctrl-C is for us; we end it
            )
        except BaseException:
            ours.close()
            raise
    return Spawned(child, ours, leave_s)


def ended_how(code: int) -> str:
    """How a process has ended by itself, in words; empty where that was in order."""
    if code >= 0:
        return f"exit code {code}" if code else ""
    return signal.strsignal(-code) or f"signal {-code}"
