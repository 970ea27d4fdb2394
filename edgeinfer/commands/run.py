"""`edgeinfer run`: cameras and videos in, detections out."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from edgeinfer.commands._options import config_reader, run_options, verbose
from edgeinfer.commands._report import Progress, SceneLines, print_summary
from edgeinfer.config import writes_to_stdout
from edgeinfer.daemon import Daemon
from edgeinfer.errors import EdgeinferError
from edgeinfer.interfaces import Sink
from edgeinfer.signals import Patience, Signals

TICK_S = 0.1
LOADING_TICK_S = 0.01


@click.command("run")
@run_options
@verbose
def command(**options: Any) -> int:
    """Runs the model on every source and publishes what it finds, until all sources end or a signal comes."""
    read = config_reader(**options)
    with Signals(reloads=True) as signals:
        config = read()
        extra: dict[str, Sink] = {} if writes_to_stdout(config) else {"console": SceneLines()}
        daemon = Daemon(config, extra, None if config.path is None else read)
        fatal = _run(daemon, signals)
        _end_hard_where_needed(daemon, signals)
    if fatal is not None:
        raise fatal
    failures = list(daemon.failures().values())
    for error in failures if signals.received else failures[1:]:
        click.echo(f"edgeinfer: also: {error}", err=True)
    if failures and not signals.received:
        raise failures[0]
    return 0


def _run(daemon: Daemon, signals: Signals) -> EdgeinferError | None:
    """The run from start to summary. Returns what ended it, where that was an error."""
    fatal: EdgeinferError | None = None
    told: set[str] = set()
    with Progress(daemon) as progress:
        try:
            daemon.start()
            while daemon.running() and not signals.received:
                daemon.reload(signals.hangups)
                progress.update()
                _tell_failures(daemon, told)
                time.sleep(LOADING_TICK_S if daemon.loading else TICK_S)
        except EdgeinferError as error:
            fatal = error
        summary = daemon.stop(Patience(signals, hurry=fatal is not None))
    if not daemon.loading:
        print_summary(summary)
    return fatal


def _end_hard_where_needed(daemon: Daemon, signals: Signals) -> None:
    """After a second signal, or beside a thread that hangs: a normal exit would wait for it."""
    if signals.received > 1 or (signals.received and daemon.hung):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + signals.last if signals.received > 1 else 0)


def _tell_failures(daemon: Daemon, told: set[str]) -> None:
    """A source that fails while others go on is reported at once, not only at the end."""
    errors = daemon.source_errors()
    if len(errors) < len(daemon.ledgers):
        for name in errors.keys() - told:
            told.add(name)
            click.echo(f"edgeinfer: source {name} failed: {errors[name]}", err=True)
