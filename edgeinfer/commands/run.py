"""`edgeinfer run`: cameras and videos in, detections out."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from edgeinfer.commands._options import build_config, run_options, verbose
from edgeinfer.commands._report import Progress, SceneLines, print_summary
from edgeinfer.daemon import Daemon, Summary
from edgeinfer.interfaces import Sink
from edgeinfer.signals import Patience, Signals

TICK_S = 0.1


@click.command("run")
@run_options
@verbose
def command(**options: Any) -> int:
    """Runs the model on every source and publishes what it finds, until all sources end or a signal comes."""
    config = build_config(**options)
    with Signals() as signals:
        quiet = any(
            plugin.name == "jsonl" and getattr(plugin.options, "path", "") == "-" for plugin in config.sinks.values()
        )
        scenes: dict[str, Sink] = {} if quiet else {"console": SceneLines()}
        daemon = Daemon(config, scenes)
        summary = _run(daemon, signals)
        print_summary(summary)
        if signals.received > 1:
            sys.stderr.flush()
            os._exit(128 + signals.last)  # what hangs has had its chance; a normal exit would wait for it
    failure = daemon.failure()
    if failure is not None:
        raise failure
    return 0


def _run(daemon: Daemon, signals: Signals) -> Summary:
    told: set[str] = set()
    with Progress(daemon) as progress:
        daemon.start()
        while daemon.running() and not signals.received:
            progress.update()
            _tell_failures(daemon, told)
            time.sleep(TICK_S)
        return daemon.stop(Patience(signals))


def _tell_failures(daemon: Daemon, told: set[str]) -> None:
    """A source that fails while others go on is reported at once, not only at the end."""
    errors = daemon.source_errors()
    if len(errors) < len(daemon.ledgers):
        for name in errors.keys() - told:
            told.add(name)
            click.echo(f"edgeinfer: source {name} failed: {errors[name]}", err=True)
