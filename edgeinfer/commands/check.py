"""`edgeinfer check`: validate a configuration, opening nothing."""

from __future__ import annotations

from pathlib import Path

import click

from edgeinfer.commands._options import verbose
from edgeinfer.commands._terminal import echo
from edgeinfer.config.card import load_model
from edgeinfer.config.settings import load_config
from edgeinfer.daemon.assembly import open_decoder
from edgeinfer.sinks import zmq
from edgeinfer.web.binding import check_http


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path))
@verbose
def command(config: Path) -> int:
    """Validates CONFIG: every key, value, plugin option, and the model's card. Opens no camera and no socket."""
    settings = load_config(config)
    model = load_model(settings.model.path, settings.model.card, settings.model.sha256)
    open_decoder(model, settings.model)
    for sink in settings.sinks.values():
        if isinstance(sink.options, zmq.Options):
            zmq.check(sink.options)
    if settings.http is not None:
        check_http(settings.http)
    echo(f"{config}: ok: {model.id} on {settings.backend.name}, sources {', '.join(settings.sources) or 'none'}")
    return 0
