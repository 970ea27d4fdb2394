"""Man pages in docs/man: one of the program and one of each command, from the same declarations as the help."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeinfer import codes
from reference.commands import Command, Switch, program

PROGRAM = "edgeinfer"


def pages() -> dict[str, str]:
    """File name → text."""
    whole = program()
    names = [PROGRAM, *(page_name(part) for part in whole.parts)]
    return {f"{page_name(command)}.1": page(command, names) for command in (whole, *whole.parts)}


def page_name(command: Command) -> str:
    """`edgeinfer-run`."""
    return command.name.replace(" ", "-")


def page(command: Command, names: list[str]) -> str:
    """A whole page; `names` are those of all pages, for the end."""
    lines = [
        '.\\" Made by scripts/generate.',
        f'.TH "{page_name(command).upper()}" "1" "" "{PROGRAM}" "User Commands"',
        ".SH NAME",
        f"{escaped(page_name(command))} \\- {escaped(command.summary)}",
        ".SH SYNOPSIS",
        *synopsis(command),
        ".SH DESCRIPTION",
        *described(command),
        *optional(command),
        *(commands(command) if command.name == PROGRAM else parts(command)),
        ".SH EXIT STATUS",
        *(line for code, text in codes.EXIT_CODES.items() for line in item(str(code), text)),
        ".SH SEE ALSO",
        ",\n".join(f".BR {escaped(name)} (1)" for name in names if name != page_name(command)).replace("),", ") ,"),
    ]
    return "\n".join(lines) + "\n"


def synopsis(command: Command) -> Iterator[str]:
    """How it is called: its name is bold, the rest is not."""
    yield f"\\fB{escaped(command.name)}\\fP{escaped(command.usage.removeprefix(command.name))}"


def described(command: Command) -> Iterator[str]:
    """Its paragraphs; those that keep their lines are set as they are."""
    for number, text in enumerate(command.paragraphs):
        if number:
            yield ".PP"
        yield from (".nf", *map(line, text.split("\n")), ".fi") if "\n" in text else (line(text),)


def optional(command: Command) -> Iterator[str]:
    """Its options, where it has any beside the help."""
    if command.options:
        yield ".SH OPTIONS"
        yield from listed(command.options)


def listed(options: tuple[Switch, ...]) -> Iterator[str]:
    """Options and what they are for."""
    for option in options:
        yield from item(option.typed, option.help)


def commands(command: Command) -> Iterator[str]:
    """The program's commands, which have pages of their own."""
    yield ".SH COMMANDS"
    for part in command.parts:
        yield from item(part.name.removeprefix(f"{command.name} "), f"{part.summary}. See {page_name(part)}(1).")


def parts(command: Command) -> Iterator[str]:
    """What a command consists of, in full."""
    if command.parts:
        yield ".SH COMMANDS"
    for part in command.parts:
        yield f".SS {escaped(part.name.removeprefix(f'{PROGRAM} '))}"
        yield from synopsis(part)
        yield ".PP"
        yield from described(part)
        yield from listed(part.options[:-1])


def item(name: str, text: str) -> tuple[str, ...]:
    """A name with its explanation, indented."""
    return ".TP", f"\\fB{escaped(name)}\\fP", line(text) or "\\&"


def line(text: str) -> str:
    """A line of text, in which nothing is an instruction; `code` is bold."""
    words = re.sub(r"`([^`]*)`", r"\\fB\1\\fP", escaped(text))
    return f"\\&{words}" if words.startswith((".", "'")) else words


def escaped(text: str) -> str:
    """What roff shows as it is: a hyphen stays one that can be copied."""
    return text.replace("\\", "\\e").replace("-", "\\-")
