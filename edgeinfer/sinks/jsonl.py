"""JSON lines: every message as it is published, one per line, to a file or to standard output."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from edgeinfer.errors import TEMPORARY, EdgeinferError, InputError, unreadable
from edgeinfer.messages import Message, encode, kind_of
from edgeinfer.sinks._lines import LineFile, StandardOutput
from edgeinfer.sinks._recovery import Recovery
from edgeinfer.types import Result


class Options(Struct, frozen=True, kw_only=True):
    """`path` is a file, appended to, or `-` for standard output. `kinds` chooses what is written."""

    path: Annotated[str, Meta(min_length=1)]
    kinds: tuple[Literal["detections", "status", "info"], ...] = ("detections",)


def open(options: Options) -> JsonLines:  # noqa: A001 (the plugin interface)
    """Opens the file. Raises InputError, or TemporaryError where the machine lacks something now."""
    try:
        file = StandardOutput() if options.path == "-" else LineFile(Path(options.path))
        return JsonLines(file, options)
    except ValueError as error:
        raise InputError(f"sinks.jsonl.path: {options.path}: {error}") from None
    except OSError as error:
        raise _unopened(f"sinks.jsonl.path: {options.path}", error) from None


def _unopened(where: str, error: OSError) -> EdgeinferError:
    if error.errno in TEMPORARY:
        return unreadable(where, error)
    hint = "nobody reads this pipe: start its reader first" if error.errno == errno.ENXIO else ""
    return InputError(f"{where}: {error.strerror or error}", hint)


class JsonLines:
    """See `Sink` and `Recovering`. A line is there whole as soon as it is written, or not at all."""

    blocks = True
    pictures = False

    def __init__(self, file: LineFile | StandardOutput, options: Options) -> None:
        self._file = file
        self._kinds = frozenset(options.kinds)
        self._recovery = Recovery(f"sinks.jsonl: {options.path}")

    @property
    def trouble(self) -> str:
        """See `Recovering.trouble`."""
        return self._recovery.trouble

    @property
    def reason(self) -> str:
        """See `Recovering.reason`."""
        return self._recovery.reason

    @property
    def lost(self) -> int:
        """See `Recovering.lost`."""
        return self._recovery.lost

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. Raises BrokenPipeError where the reader of standard output has gone."""
        if kind_of(message) not in self._kinds:
            return
        if not self._recovery.due:
            self._recovery.skip()
            return
        try:
            self._file.append(encode(message) + b"\n")
        except OSError as error:
            if isinstance(error, BrokenPipeError) and isinstance(self._file, StandardOutput):
                raise
            self._recovery.fail(error)
        else:
            self._recovery.succeed()

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""
        self._file.close()
