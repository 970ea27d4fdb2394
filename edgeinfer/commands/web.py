"""`edgeinfer web`: tokens for the live page and its API."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from edgeinfer.commands._group import Group
from edgeinfer.commands._options import json_output, verbose
from edgeinfer.commands._terminal import echo, echo_json
from edgeinfer.config.folders import own_folder
from edgeinfer.web.access import tokens

FILE = click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="What the configuration calls http.token; ~/.config/edgeinfer/web.tokens by default.",
)


def file_or_default(given: Path | None) -> Path:
    """The file that is meant."""
    own = own_folder(os.environ, "CONFIGURATION_DIRECTORY", "XDG_CONFIG_HOME", ".config")
    return given or own / "web.tokens"


@click.group("web", cls=Group)
def command() -> None:
    """Says who may open the live page (edgeinfer run --web) and use its API."""


@command.group("token", cls=Group)
def token() -> None:
    """Makes tokens and takes them back. A running daemon sees it within a second."""


@token.command("new")
@click.option("--admin", is_flag=True, help="It may also change the configuration, and reload.")
@click.option("--name", help="Whose it is; viewer or admin by default.")
@FILE
@verbose
def new(admin: bool, name: str | None, file: Path | None) -> None:
    """Makes a token and prints it, this once. The file keeps its hash."""
    path = file_or_default(file)
    if file is None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made, secret = tokens.add(path, "admin" if admin else "viewer", name)
    echo(f"edgeinfer: {path}: {made.name} may {'change things' if admin else 'look'}; http.token names this file", True)
    if os.geteuid() == 0:
        echo(f"edgeinfer: a service of its own user reads it after: chgrp edgeinfer {path}; chmod 640 {path}", True)
    echo(secret)


@token.command("ls")
@FILE
@json_output
@verbose
def list_tokens(file: Path | None, as_json: bool) -> None:
    """Prints whose tokens the file holds; the tokens themselves nobody can print any more."""
    found = tokens.read(file_or_default(file))
    if as_json:
        echo_json(json.dumps([{"name": each.name, "role": each.role} for each in found]))
        return
    for each in found:
        echo(f"{each.role:6}  {each.name}")


@token.command("revoke")
@click.argument("name")
@FILE
@verbose
def revoke(name: str, file: Path | None) -> None:
    """Takes NAME's token back. A running daemon ends what was opened with it within a second."""
    path = file_or_default(file)
    found = tokens.revoke(path, name)
    echo(f"{path}: {found.name} may not {'look' if found.role == 'viewer' else 'change things'} any more")
