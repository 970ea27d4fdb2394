"""What went wrong in a run that came to its end all the same."""

from __future__ import annotations

from collections.abc import Mapping

from edgeinfer.errors import EdgeinferError, TemporaryError
from edgeinfer.flow.sinkset import SinkSet, reason_of

STDOUT_SINKS = ("console", "sinks.jsonl")
"""Sinks that write to standard output; what reads it may go away, and the run then has no more purpose."""


def failures(sources: Mapping[str, EdgeinferError], sinks: SinkSet) -> dict[str, EdgeinferError]:
    """Sources and sinks that failed, by name."""
    found: dict[str, EdgeinferError] = {f"source {name}": error for name, error in sources.items()}
    for name, trouble in list(sinks.failed.items()):
        if not _is_reader_of_stdout(name, trouble):
            found[name] = TemporaryError(f"{name}: {reason_of(trouble)}", "what came after that was not written there")
    for name, (count, why) in sinks.unwritten.items():
        said = f": {why}" if why else " before the end"
        found[name] = TemporaryError(f"{name}: {count} messages were not written{said}", "the others are all there")
    return found


def reader_gone(sinks: SinkSet) -> bool:
    """Whether whoever read our standard output has closed it."""
    return any(_is_reader_of_stdout(name, error) for name, error in list(sinks.failed.items()))


def _is_reader_of_stdout(name: str, error: Exception) -> bool:
    return isinstance(error, BrokenPipeError) and name in STDOUT_SINKS
