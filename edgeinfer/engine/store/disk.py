"""What the cache asks of a file system: durable, gone, or an error that says what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeinfer.engine.errors import CacheError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def sync(path: Path) -> None:
    """Brings a file's contents, or a folder's entries, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete(path: Path) -> None:
    """Removes a file or a folder with all that is in it, as far as that goes. Follows no link."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; 0 where it is gone."""
    with suppress(OSError):
        return sum(path.lstat().st_size for path in folder.iterdir()) if folder.is_dir() else folder.lstat().st_size
    return 0


@contextmanager
def told(root: Path) -> Iterator[None]:
    """Makes a CacheError of what the file system refuses within `root`."""
    try:
        yield
    except OSError as error:
        hint = (
            "make room, or run `edgeinfer engines prune`"
            if error.errno in NO_SPACE
            else "check its owner and permissions"
        )
        raise CacheError(f"{root}: can't be written ({error.strerror})", hint) from error
