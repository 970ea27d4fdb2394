"""Tables and live lines of text from anybody, which a terminal shows and does not obey."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from edgeinfer.commands._streams import Window
from edgeinfer.guard.printable import one_line, visible

WIDE = 200
"""Columns where no terminal says how many it has."""
GOOD, WARNING, BAD, NOTE = "color(28)", "color(130)", "color(160)", "color(31)"
"""Green, orange, red and blue of the 256 that terminals know: they can be read on white and on black."""


def cell(text: str, style: str = "") -> Text:
    """A name, a label, a reason in a table: one line, and no markup."""
    return Text(one_line(text), style)


def console(err: bool = False, wide: bool = False) -> Console:
    """For tables and live lines. `wide`: where no terminal shows it, no line is broken."""
    stream = sys.stderr if err else sys.stdout
    width = WIDE if wide and not stream.isatty() else None
    return SafeConsole(
        file=cast("TextIO", _Drawing(stream)), width=width, highlight=False, markup=False, emoji=False, stderr=err
    )


class SafeConsole(Console):
    """Draws with a terminal's commands, and takes none from the text that it shows."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Like Console's."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), _without_link(style), control)


class _Drawing:
    """The stream that a console writes to: past the cleaning, which would take its commands away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if isinstance(self._stream, Window):
            return self._stream.write_as_it_is(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _without_link(style: Style | None) -> Style | None:
    return style.update_link(None) if style is not None and style.link else style
