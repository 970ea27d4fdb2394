"""`edgeinfer status`: what a running daemon does, and whether all is well."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from msgspec import UNSET

from edgeinfer.client import Subscriber
from edgeinfer.commands import _overview
from edgeinfer.commands._drawing import console
from edgeinfer.commands._options import curve_options, json_output, verbose
from edgeinfer.commands._remote import RemoteDaemon, ask
from edgeinfer.commands._terminal import echo_json
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT

PATIENCE_S = 3.0
NOT_ALL_RUN = 75


@click.command("status")
@click.argument("endpoint", default=DEFAULT_ENDPOINT)
@curve_options
@json_output
@verbose
def command(endpoint: str, server_key: str | None, key: str | None, as_json: bool) -> int:
    """Prints the daemon at ENDPOINT: its model, versions and sources.

    Exit code 0: the model is loaded, every source runs and no sink loses anything. 75: it is not so, or not yet. 69: no
    daemon answers, or it does not let us in.
    """
    with Subscriber(endpoint, kinds=("info", "status"), server_key=server_key, key=key) as subscriber:
        overview = ask(subscriber, PATIENCE_S)
        if overview.info is None:
            raise _overview.no_daemon(endpoint, subscriber.refused)
    if as_json:
        echo_json(msgspec.json.encode(as_data(overview)))
    else:
        out = console(wide=True)
        out.print(_overview.header(overview))
        out.print(_overview.SourceTable(overview.sources))
        vitals = overview.daemon.vitals if overview.daemon is not None else UNSET
        if vitals is not UNSET and vitals.machine is not UNSET:
            out.print(_overview.machine(vitals.machine))
    return 0 if overview.good else NOT_ALL_RUN


def as_data(overview: RemoteDaemon) -> dict[str, Any]:
    """The messages as they came, put together."""
    data: dict[str, Any] = msgspec.to_builtins(
        {"ok": overview.good, "info": overview.info, "daemon": overview.daemon, "sources": overview.sources}
    )
    return data
