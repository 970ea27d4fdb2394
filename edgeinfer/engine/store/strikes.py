"""Starts on an engine that have not ended well so far: a file beside its plan, one byte for each."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MAX_STRIKES = 3
"""After so many the engine goes into quarantine."""
_FILE = "strikes"


def count(folder: Path) -> int:
    """Strikes against the engine in that folder."""
    with suppress(OSError):
        return (folder / _FILE).stat().st_size
    return 0


def crashing(key: str, crashes: int) -> str:
    """Why an engine was put into quarantine, in words."""
    return f"engine {key[:12]} ended its process {crashes} times"


def add(folder: Path) -> None:
    """One more, on the disk when this returns: the process may crash next. Nothing where that can't be written."""
    with suppress(OSError), (folder / _FILE).open("ab") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def clear(folder: Path) -> None:
    """None any more."""
    (folder / _FILE).unlink(missing_ok=True)
