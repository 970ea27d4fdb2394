"""The command line as data, as click has it declared. docs/commands.md is made of it, and so are the man pages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import click

from edgeinfer.cli import edgeinfer
from reference.tables import table


@dataclass(frozen=True, slots=True)
class Switch:
    """An option as it is typed, with what it takes, and what it is for."""

    typed: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """`name` is what is typed, `edgeinfer engines show`. Paragraphs that keep their lines hold line feeds."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[Switch, ...]
    parts: tuple[Command, ...]

    @property
    def summary(self) -> str:
        """The first sentence, without the full stop."""
        first = self.paragraphs[0].replace("\n", " ")
        return first.partition(". ")[0].rstrip(".")


def program() -> Command:
    """All of it."""
    return described(edgeinfer, "edgeinfer")


def described(command: click.Command, name: str) -> Command:
    """A command and what it consists of."""
    parts: list[Command] = []
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        found = ((each, command.get_command(context, each)) for each in command.list_commands(context))
        parts = [described(part, f"{name} {each}") for each, part in found if part is not None and not part.hidden]
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    words = [name]
    words += ["[OPTIONS]"] if options else []
    words += [placeholder(param) for param in command.params if isinstance(param, click.Argument)]
    words += ["COMMAND [ARGUMENTS]..."] if parts else []
    texts = inspect.cleandoc(command.help or "").split("\n\n")
    return Command(
        name,
        " ".join(words),
        tuple(map(paragraph, texts)),
        (*(Switch(typed(option), explained(option)) for option in options), Switch("-h, --help", "Show the help.")),
        tuple(parts),
    )


def paragraph(text: str) -> str:
    """One line, unless it is marked as one whose lines stay."""
    return text.removeprefix("\b\n") if text.startswith("\b\n") else " ".join(text.split())


def placeholder(argument: click.Argument) -> str:
    """How an argument is shown: `CONFIG`, `[ENDPOINT]`, `{bash|zsh|fish}`."""
    name = argument.metavar or taken(argument) or (argument.name or "").upper()
    several = "..." if argument.nargs != 1 and "..." not in name else ""
    return f"{name}{several}" if argument.required or name.startswith("[") else f"[{name}]{several}"


def taken(param: click.Parameter) -> str:
    """What it takes where its type says so: one of several words, or a number."""
    kind = param.type
    if isinstance(kind, click.Choice):
        return f"{{{'|'.join(map(str, kind.choices))}}}"
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return "NUMBER"
    return "PATH" if isinstance(kind, click.Path) and isinstance(param, click.Option) else ""


def typed(option: click.Option) -> str:
    """`--config PATH`, `--gpu-fallback / --no-gpu-fallback`."""
    names = " / ".join(filter(None, (", ".join(option.opts), ", ".join(option.secondary_opts))))
    if option.is_flag or option.count:
        return names
    return f"{names} {option.metavar or taken(option) or 'TEXT'}"


def explained(option: click.Option) -> str:
    """What it is for, which numbers it takes, and what holds without it."""
    kind, default = option.type, option.default
    notes = []
    if isinstance(kind, click.IntRange) and (kind.min is not None or kind.max is not None):
        notes.append(between(kind.min, kind.max))
    if option.show_default and default is not None:
        shown = option.opts[0] if default is True else default
        notes.append(f"default: {shown}")
    text = " ".join((option.help or "").split())
    return " ".join(filter(None, (text, f"({'; '.join(notes)})" if notes else "")))


def between(lowest: float | None, highest: float | None) -> str:
    """The numbers that are allowed."""
    if highest is None:
        return f"at least {lowest}"
    return f"at most {highest}" if lowest is None else f"{lowest} to {highest}"


def reference() -> str:
    """The commands, each with its options, in Markdown."""
    return "\n\n".join(part for command in program().parts for part in sections(command, 3))


def sections(command: Command, level: int) -> Iterator[str]:
    """A command, then its parts."""
    yield f"{'#' * level} `{command.name}`"
    yield f"```\n{command.usage}\n```"
    for text in command.paragraphs:
        yield f"```\n{text}\n```" if "\n" in text else text
    if len(command.options) > 1:
        rows = ((f"`{switch.typed}`", switch.help) for switch in command.options[:-1])
        yield table(("option", "what it is for"), rows)
    for part in command.parts:
        yield from sections(part, level + 1)
