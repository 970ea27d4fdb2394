"""The first moments of the process: signals that come before anybody is there to answer them wait, and are not lost.

By default SIGHUP would end a daemon that is about to read its configuration, and SIGINT would print a traceback of
imports. Called before anything else is imported. What comes before that, while the interpreter itself starts, is the
interpreter's: some hundredths of a second, in which only a parent that ignores SIGHUP can help (`supervisor.py` does).
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

DAEMONS = frozenset({"run"})
"""Commands that answer SIGHUP and SIGTERM themselves."""
PARENT = "EDGEINFER_SUPERVISOR"
"""The environment variable that tells a supervisor's child its parent's PID."""
_held: set[signal.Signals] = set()


def hold(args: Sequence[str]) -> None:
    """Holds signals back from now on, for the command in `args`. A daemon never ends by SIGUSR1 or SIGUSR2."""
    daemon = bool(args) and args[0] in DAEMONS
    wanted = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} if daemon else {signal.SIGINT}
    _held.update(wanted - signal.pthread_sigmask(signal.SIG_BLOCK, wanted))
    if daemon:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.SIG_IGN)


def release() -> None:
    """Lets in what has waited: whoever answers is there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _held)
    _held.clear()
