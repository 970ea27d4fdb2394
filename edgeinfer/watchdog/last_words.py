"""The end of a process that can't go on: says why everywhere it can, within a moment, and is gone with exit code 70."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import click

from edgeinfer.errors import FatalError
from edgeinfer.guard.printable import printable
from edgeinfer.messages import Reason
from edgeinfer.watchdog.crash import Crash

TELL_S = 0.1
"""What the publisher gets to send the last `status`: one turn of its loop, and the socket's own thread."""
LIMIT_S = 1.5
"""After that the process ends, whatever hangs meanwhile: a terminal, a disk, the journal."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """What `speak` does: `keep` stores the crash, `tell` publishes the reason and must not block."""

    keep: Callable[[Crash], None]
    tell: Callable[[Reason], None]

    def speak(self, crash: Crash) -> NoReturn:
        """Dumps all stacks, publishes, stores, and ends the process. Frees nothing: a driver may never return."""
        started = time.monotonic()
        guard = threading.Timer(LIMIT_S, os._exit, (FatalError.exit_code,))
        guard.daemon = True
        with contextlib.suppress(RuntimeError):  # without a thread to spare the rest must be said too
            guard.start()
        with contextlib.suppress(Exception):
            self.tell(Reason("fatal", printable(crash.text)))
        with contextlib.suppress(Exception):  # standard error may be closed, or no file
            click.echo(f"edgeinfer: error: {printable(crash.text)}; the process ends, start it again", err=True)
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        with contextlib.suppress(Exception):
            self.keep(crash)
        time.sleep(max(0.0, started + TELL_S - time.monotonic()))
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(FatalError.exit_code)
