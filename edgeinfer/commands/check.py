"""`edgeinfer check`: validate a configuration, opening nothing."""

from __future__ import annotations

from pathlib import Path

import click

from edgeinfer.commands._options import verbose
from edgeinfer.commands._terminal import echo
from edgeinfer.config.settings import read_config
from edgeinfer.daemon.checking import check, summary


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@verbose
def command(config: Path) -> int:
    """Validates CONFIG and its drop-ins: every key, value, plugin option, and the model's card. Opens no camera and no
    socket. What is wrong is told with its line and column.
    """
    reading = read_config(config)
    model = check(reading)
    echo(f"{config}: ok: {summary(reading.config, model)}")
    return 0
