"""A plan is native code: only what nobody else could have written is ever opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgeinfer.engine.errors import PlanError, UnsafeError
from edgeinfer.guard.files import open_anything


def check_folder(path: Path) -> None:
    """Raises UnsafeError where somebody else owns the folder or may write into it."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeError(f"{path}: no folder", "move it away")
    _check_owner(path, status)


def check_file(path: Path) -> None:
    """Raises UnsafeError where somebody else owns a library or its folder, or may write either."""
    try:
        real = path.resolve(strict=True)
        for place in (real, real.parent):
            _check_owner(place, place.stat())
    except OSError as error:
        raise UnsafeError(f"{path}: can't be read ({error.strerror})", "check the path") from error


def read_private(path: Path, limit: int = -1) -> bytes:
    """The bytes of a regular file that only we (or root) may write, up to `limit` of them where it is not negative.

    Raises UnsafeError, or PlanError if unreadable.
    """
    try:
        with open_anything(path, follow=False) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeError(f"{path}: no regular file", "remove it")
            _check_owner(path, status)
            return file.read(limit)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeError(f"{path}: a symbolic link, where a file should be", "remove it") from error
        raise PlanError(f"{path}: can't be read ({error.strerror})", "build the engine again") from error


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {os.geteuid(), 0}:
        raise UnsafeError(
            f"{path}: belongs to user {status.st_uid}, and engines are native code",
            f"chown it to {os.geteuid()} if you trust it, or remove it",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeError(
            f"{path}: others may write it (mode {stat.S_IMODE(status.st_mode):04o}), and engines are native code",
            "chmod go-w it if you trust it, or remove it",
        )
