"""Files that say who may come in, or hold what proves it: read only where nobody else could have written them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from edgeinfer.errors import ConfigError
from edgeinfer.guard.files import open_anything
from edgeinfer.guard.ownership import readers, writers


def check_owned(path: Path, status: os.stat_result, secret: bool) -> None:
    """Raises ConfigError for what is no file, what others may write and, where it is `secret`, what others may read."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path}: not a regular file")
    if who := writers(status):
        raise ConfigError(f"{path}: {who}", "only its owner or root should: chown and chmod go-w it")
    if secret and (who := readers(status)):
        raise ConfigError(f"{path}: {who}", f"chmod 600 {path}")


def read_owned(path: Path, limit: int, check: Callable[[os.stat_result], None]) -> bytes:
    """The bytes of what `check` finds nothing wrong with, for as long as the disk takes.

    Raises what `check` does, ConfigError where there are more than `limit`, OSError and ValueError.
    """
    with open_anything(path) as file:
        check(os.fstat(file.fileno()))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ConfigError(f"{path}: larger than {limit >> 10} KiB", "is this the right file?")
    return data
