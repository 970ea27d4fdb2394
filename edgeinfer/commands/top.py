"""`edgeinfer top`: a live table of sources, stages, latencies and temperatures."""

from __future__ import annotations

import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live

from edgeinfer.client import Subscriber
from edgeinfer.commands import _overview
from edgeinfer.commands._drawing import console
from edgeinfer.commands._options import curve_options, verbose
from edgeinfer.commands._remote import RemoteDaemon, ask
from edgeinfer.daemon.signals import Signals
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT

PATIENCE_S = 3.0
WAIT_S = 0.1


@click.command("top")
@click.argument("endpoint", default=DEFAULT_ENDPOINT)
@curve_options
@click.option("--once", is_flag=True, help="Print the table once and end; so it is too where no terminal shows it.")
@verbose
def command(endpoint: str, server_key: str | None, key: str | None, once: bool) -> int:
    """Shows the daemon at ENDPOINT until q or Ctrl-C."""
    out = console(wide=True)
    with Subscriber(endpoint, kinds=("info", "status"), server_key=server_key, key=key) as subscriber:
        overview = ask(subscriber, PATIENCE_S)
        if overview.info is None:
            raise _overview.no_daemon(endpoint, subscriber.refused)
        if once or not out.is_terminal:
            out.print(_overview.page(overview))
        else:
            _watch(subscriber, overview, out)
    return 0


def _watch(subscriber: Subscriber, overview: RemoteDaemon, out: Console) -> None:
    with (
        Signals() as signals,
        _keys() as pressed,
        Live(_overview.page(overview), console=out, screen=True, auto_refresh=False) as live,
    ):
        while not signals.received and next(pressed) not in ("q", "Q", "\x03"):
            message = subscriber.receive(WAIT_S)
            if message is not None:
                overview.add(message)
                live.update(_overview.page(overview), refresh=True)


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """Gives the keys that were pressed, one a step, empty while there is none; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield iter(lambda: "", None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield iter(lambda: sys.stdin.read(1) if select.select([descriptor], [], [], 0)[0] else "", None)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
