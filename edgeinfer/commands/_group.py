"""A command that consists of others, and says of each what it does."""

from __future__ import annotations

import inspect

import click


class Group(click.Group):
    """Lists its commands with the whole first sentence of their help, where click would cut it after some words."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Like click's."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_sentence(self.commands[name])) for name in self.list_commands(ctx)])


def first_sentence(command: click.Command) -> str:
    """Of a command's help, in one line, with its full stop."""
    paragraph = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return f"{sentence}." if stop else sentence
