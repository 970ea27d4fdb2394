"""Questions about paths that never raise: a path that can't be asked about counts as not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgeinfer.errors import InputError


def exists(path: str | Path) -> bool:
    """Whether something is there, as far as we may know."""
    return _mode(path) is not None


def is_dir(path: str | Path) -> bool:
    """Whether a folder is there, as far as we may know."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: str | Path) -> bool:
    """Whether a file is there, as far as we may know."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def check_readable(path: Path) -> None:
    """Raises InputError where `path` is not there, or we may not read it, or its name is no text."""
    try:
        str(path).encode()
        path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not valid text (UTF-8)"
        raise InputError(f"{path}: {(reason or str(error)).lower()}") from None
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: permission denied")


def _mode(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 (takes both kinds)
    except (OSError, ValueError):
        return None
