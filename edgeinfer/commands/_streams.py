"""Standard streams that may be closed from the start, or lose their readers: `edgeinfer listen | head -1`.

A reader of standard output that has gone ends a command, and well. One of standard error ends nothing: what it would
have been told is dropped, and the command goes on to its own exit code.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

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


def prepare() -> Outlet | None:
    """Replaces the standard streams: by the null device where one is closed, else by one that survives its reader.

    Returns what is behind standard output; None where that was closed, or is somebody else's stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123 (open until the process ends)
            setattr(sys, name, stream)
    if sys.__stderr__ is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _over(Outlet(sys.stderr.fileno(), drops=True), sys.__stderr__)
    if sys.__stdout__ is None or sys.stdout is not sys.__stdout__:
        return None
    outlet = Outlet(sys.stdout.fileno(), drops=False)
    sys.stdout = _over(outlet, sys.__stdout__)
    return outlet


def _over(outlet: Outlet, stream: TextIO) -> TextIO:
    """A text stream like `stream` that writes to `outlet`."""
    at_once = bool(getattr(stream, "write_through", False))
    return io.TextIOWrapper(
        outlet if at_once else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=bool(stream.line_buffering),
        write_through=at_once,
    )
