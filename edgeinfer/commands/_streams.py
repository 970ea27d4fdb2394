"""Standard streams that may be closed from the start, or lose their readers: `edgeinfer listen | head -1`.

A reader of standard output that has gone ends a command, and well. One of standard error ends nothing: what it would
have been told is dropped, and the command goes on to its own exit code.

They are the terminal's edge: whatever is written to them, by us or by a library, is made printable on its way. Only
what draws on a terminal, and has seen to that itself (`_drawing.py`), goes past.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from edgeinfer.guard.printable import visible
from edgeinfer.guard.redaction import redact

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Outlet(io.FileIO):
    """A descriptor that knows whether its reader has gone. With `drops` what is written then is lost without an error.

    The descriptor stays open when this is closed.
    """

    def __init__(self, descriptor: int, drops: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.drops = drops
        self.gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Like FileIO's. Raises BrokenPipeError where the reader has gone, unless it drops."""
        try:
            return super().write(data)
        except BrokenPipeError:
            self.gone = True
            if not self.drops:
                raise
            return memoryview(data).nbytes


class Window(io.TextIOWrapper):
    """A text stream that changes what is written to it by `clean`."""

    clean: Callable[[str], str]

    def write(self, text: str, /) -> int:
        """Like TextIOWrapper's, after cleaning. Text that the encoding lacks is escaped."""
        super().write(self.clean(text))
        return len(text)

    def write_as_it_is(self, text: str) -> int:
        """For text that holds a terminal's own commands."""
        return super().write(text)


def prepare() -> Outlet | None:
    """Replaces the standard streams: by the null device where one is closed, else by one that survives its reader.

    Returns what is behind standard output; None where that was closed, or is somebody else's stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123 (open until the process ends)
            setattr(sys, name, stream)
    if sys.__stderr__ is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _over(Outlet(sys.stderr.fileno(), drops=True), sys.__stderr__, _said)
    if sys.__stdout__ is None or sys.stdout is not sys.__stdout__:
        return None
    outlet = Outlet(sys.stdout.fileno(), drops=False)
    sys.stdout = _over(outlet, sys.__stdout__)
    return outlet


def _said(text: str) -> str:
    """What is told on standard error; standard output has data, in which nothing may be replaced."""
    return visible(redact(text))


def _over(outlet: Outlet, stream: TextIO, clean: Callable[[str], str] = visible) -> Window:
    """A text stream like `stream` that writes to `outlet`."""
    at_once = bool(getattr(stream, "write_through", False))
    window = Window(
        outlet if at_once else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=bool(stream.line_buffering),
        write_through=at_once,
    )
    window.clean = clean
    return window
