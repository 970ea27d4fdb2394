"""Opening what may be anything: a pipe that nobody writes to, a folder, a link to somewhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def open_anything(path: Path, follow: bool = True) -> BinaryIO:
    """Opens `path` for reading, without waiting for anybody. The caller looks what it is, and closes it.

    Raises OSError, for a folder and, without `follow`, for a symbolic link too; nothing stays open then.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return open(path, "rb", opener=lambda *_: os.open(path, flags))
