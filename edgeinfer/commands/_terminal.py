"""What a command says: text from anybody in, text that a terminal shows and does not obey out."""

from __future__ import annotations

import click

from edgeinfer.guard.printable import escaped, one_line, visible


def echo(text: str, err: bool = False) -> None:
    """One line: a line feed in a name or a label does not begin another."""
    click.echo(one_line(text), err=err)


def echo_lines(text: str, err: bool = False) -> None:
    """A text of ours with several lines."""
    click.echo(visible(text), err=err)


def echo_json(text: str | bytes) -> None:
    """JSON, whose meaning stays as it is."""
    click.echo(escaped(text if isinstance(text, str) else text.decode()))
