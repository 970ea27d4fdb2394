"""`edgeinfer run`: cameras and videos in, detections out."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from edgeinfer.commands._arguments import pass_on
from edgeinfer.commands._options import config_reader, run_options, verbose
from edgeinfer.commands._terminal import echo
from edgeinfer.guard.descriptors import raise_limit
from edgeinfer.guard.memory import bound_arenas
from edgeinfer.systemd import notify
from edgeinfer.watchdog.supervisor import Supervisor, die_with_supervisor


@click.command("run")
@run_options
@click.option("--supervise", is_flag=True, help="Start the daemon again when it crashes or freezes; systemd does too.")
@verbose
def command(supervise: bool, **options: Any) -> int:
    """Runs the model on every source and publishes what it finds, until all sources end or a signal comes."""
    if supervise and not notify.enabled():
        return supervised()
    die_with_supervisor()
    bound_arenas()
    raise_limit()
    running = importlib.import_module("edgeinfer.commands._running")  # not for a supervisor, the help or a shell's Tab
    code: int = running.run(config_reader(**options))
    return code


def supervised() -> int:
    """This very command again, as the child of a supervisor. The child sees the supervisor, and runs."""
    argv = [sys.executable, "-m", "edgeinfer", *pass_on(sys.argv[1:])]
    return Supervisor(argv, lambda text: echo(f"edgeinfer: supervisor: {text}", err=True)).run()
