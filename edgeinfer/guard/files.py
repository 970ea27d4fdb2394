"""Opening and reading what may be anything: a pipe that nobody writes to, a folder, a disk that never answers."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

from edgeinfer.guard.limits import FILE_SECONDS, MAX_HANGING_READS


def open_anything(path: Path, follow: bool = True) -> BinaryIO:
    """Opens `path` for reading, without waiting for anybody. The caller looks what it is, and closes it.

    Raises OSError, for a folder and, without `follow`, for a symbolic link too; nothing stays open then.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return open(path, "rb", opener=lambda *_: os.open(path, flags))


def read_small(path: Path, limit: int, seconds: float = FILE_SECONDS) -> bytes:
    """The bytes of a small file that somebody named: a configuration, a card, a password.

    Raises OSError where it is no regular file (EINVAL), holds more than `limit` bytes (EFBIG) or can't be read in time
    (ETIMEDOUT), ValueError for a path that can't be one.
    """
    return _Reading(path, limit).result(seconds)


class _Reading:
    """One file being read by a thread of its own: a network disk that hangs holds that, and nobody who waits."""

    hanging = threading.BoundedSemaphore(MAX_HANGING_READS)

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._found: bytes | Exception = b""

    def result(self, seconds: float) -> bytes:
        """See `read_small`."""
        if not self.hanging.acquire(blocking=False):
            raise OSError(errno.ETIMEDOUT, "files read before this one still hang; is a network disk away?")
        thread = threading.Thread(target=self._run, name="file", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self.hanging.release()
            raise OSError(errno.EAGAIN, "no thread to read it with") from None
        thread.join(seconds)
        if thread.is_alive():
            raise OSError(errno.ETIMEDOUT, f"not read within {seconds:g} seconds")
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def _run(self) -> None:
        try:
            self._found = _read(self._path, self._limit)
        except Exception as error:  # raised by whoever waits
            self._found = error
        finally:
            self.hanging.release()


def _read(path: Path, limit: int) -> bytes:
    with open_anything(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, f"a device, which may be larger than {limit >> 10} KiB, and not a regular file")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = file.read(limit + 1)
    if data is None:  # /proc/kmsg and its like say "not now"
        raise OSError(errno.EINVAL, "not a regular file")
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit >> 10} KiB")
    return data
