"""`edgeinfer keys`: CURVE keys for subscribers on other machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgeinfer.commands._group import Group
from edgeinfer.commands._options import json_output, verbose
from edgeinfer.commands._terminal import echo, echo_json
from edgeinfer.transport import keys
from edgeinfer.transport.keys import Client

FILE = click.Path(path_type=Path)


@click.group("keys", cls=Group)
def command() -> None:
    """Makes keys and says whose are let in.

    The daemon has one pair, every subscriber has its own. Each side gets the other's public half.
    """


@command.command("new")
@click.argument("name", type=FILE)
@verbose
def new(name: Path) -> None:
    """Makes a pair: NAME.key, the secret, for its owner alone, and NAME.pub, for the other side."""
    secret, public = keys.write_pair(keys.generate(), name)
    echo(f"{secret}: secret, keep it on this machine")
    echo(f"{public}: public, give it to the other side")


@command.command("show")
@click.argument("file")
@verbose
def show(file: str) -> None:
    """Prints the public key in FILE, a .pub or .key file."""
    echo(keys.read_public(file).public)


@command.command("allow")
@click.argument("list_file", metavar="LIST", type=FILE)
@click.argument("client")
@click.option("--name", help="What to call it; the .pub file says so by itself.")
@verbose
def allow(list_file: Path, client: str, name: str | None) -> None:
    """Lets a client in: adds CLIENT, a .pub file or a public key, to LIST. A running daemon sees it at once."""
    found = keys.read_public(client)
    added = keys.allow(list_file, Client(found.public, name or found.name))
    echo(f"{list_file}: {name or found.name or found.public} {'is let in' if added else 'was on it already'}")


@command.command("ls")
@click.argument("list_file", metavar="LIST", type=FILE)
@json_output
@verbose
def list_clients(list_file: Path, as_json: bool) -> None:
    """Prints who is on LIST."""
    found = keys.read_list(list_file)
    if as_json:
        table: list[dict[str, Any]] = [{"name": client.name, "public_key": client.public} for client in found]
        echo_json(json.dumps(table))
        return
    for client in found:
        echo(f"{client.public}  {client.name}".rstrip())


@command.command("revoke")
@click.argument("list_file", metavar="LIST", type=FILE)
@click.argument("client")
@verbose
def revoke(list_file: Path, client: str) -> None:
    """Takes CLIENT, a name, public key or .pub file, off LIST. A running daemon disconnects it within a second."""
    found = keys.revoke(list_file, client)
    echo(f"{list_file}: {found.name or found.public} is not let in any more")
