"""Opening files to write to, where somebody else may have put something else in their place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

TRAP = "it belongs to somebody else, in a folder where others may put things"


def open_output(path: Path, flags: int) -> int:
    """Opens a file, a pipe or a device for writing, made where it is missing, and never waits for a reader.

    In a folder that others may write to, like /tmp, only what is ours or the folder's owner's is opened, and no link
    to it: what the kernel's fs.protected_* switches say where they are on. Raises OSError.
    """
    if _is_shared(path) and path.is_symlink():
        if not _is_trusted(path, path.lstat()):
            raise OSError(errno.EACCES, TRAP)
        path = path.resolve()
    shared = _is_shared(path)
    flags |= os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (os.O_NOFOLLOW if shared else 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except PermissionError:
        if shared and not _is_trusted(path, path.lstat()):  # the kernel refuses it too
            raise OSError(errno.EACCES, TRAP) from None
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if shared and not _is_trusted(path, status):
            raise OSError(errno.EACCES, TRAP)
        os.set_blocking(descriptor, True)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def same_file(path: Path, descriptor: int) -> bool:
    """Whether `path` still is what is open: nobody has removed it or put another in its place."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _is_shared(path: Path) -> bool:
    status = path.parent.stat()
    return bool(status.st_mode & stat.S_IWOTH)


def _is_trusted(path: Path, status: os.stat_result) -> bool:
    """Ours, the folder's owner's, or a device; and a file has no second name somewhere else."""
    owners = {os.geteuid(), path.parent.stat().st_uid}
    second = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    return stat.S_ISCHR(status.st_mode) or (status.st_uid in owners and not second)
