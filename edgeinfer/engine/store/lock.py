"""One build at a time per cache, also between processes. The kernel gives the lock back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeinfer.engine.errors import CacheError

POLL_S = 0.1


@contextmanager
def build_lock(path: Path, waiting: Callable[[float], None]) -> Iterator[int]:
    """Holds the lock and gives its descriptor; a child that inherits it holds it too, until it ends.

    `waiting` gets the seconds waited so far, several times a second while somebody else builds, and may raise.
    Raises CacheError where the lock file can't be opened.
    """
    descriptor = _open(path)
    try:
        start = time.monotonic()
        while not _try(descriptor):
            waiting(time.monotonic() - start)
            time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def build_lock_if_free(path: Path) -> Iterator[bool]:
    """Holds the lock if nobody else does; gives whether it could."""
    descriptor = _open(path)
    try:
        yield _try(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CacheError(f"{path}: can't be opened ({error.strerror})", "run as the user who owns the cache") from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
