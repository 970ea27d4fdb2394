"""JSON lines: every message as it is published, one per line, to a file or to standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from msgspec import Meta, Struct

from edgeinfer.errors import InputError
from edgeinfer.messages import Message, encode, kind_of
from edgeinfer.types import Result


class Options(Struct, frozen=True, kw_only=True):
    """`path` is a file, appended to, or `-` for standard output. `kinds` chooses what is written."""

    path: Annotated[str, Meta(min_length=1)]
    kinds: tuple[Literal["detections", "status", "info"], ...] = ("detections",)


def open(options: Options) -> JsonLines:  # noqa: A001 (the plugin interface)
    """Opens the file. Raises InputError."""
    if options.path == "-":
        return JsonLines(sys.stdout.buffer, options.kinds)
    try:
        return JsonLines(_open(Path(options.path)), options.kinds)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"sinks.jsonl.path: {options.path}: {reason}") from None


def _open(path: Path) -> BinaryIO:
    """For appending. A named pipe without a reader is an error (ENXIO), not a wait without end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "ab")


class JsonLines:
    """See `Sink`. Lines are flushed as they are written, so that a reader sees them at once."""

    blocks = True

    def __init__(self, file: BinaryIO, kinds: tuple[str, ...]) -> None:
        self._file = file
        self._kinds = frozenset(kinds)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. Raises OSError where the file takes no more."""
        if kind_of(message) in self._kinds:
            self._file.write(encode(message) + b"\n")
            self._file.flush()

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""
        if self._file is not sys.stdout.buffer:
            self._file.close()
