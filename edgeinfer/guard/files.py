"""Opening and reading what may be anything: a pipe that nobody writes to, a folder, a disk that never answers."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from edgeinfer.guard.limits import FILE_SECONDS, MAX_HANGING_READS

T = TypeVar("T")


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
    return in_time(lambda: _read(path, limit), seconds)


class Hanging:
    """How many calls may hang at a time, with a thread each."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(MAX_HANGING_READS)

    def begin(self) -> None:
        """Raises OSError (ETIMEDOUT) where too many hang already."""
        if not self._free.acquire(blocking=False):
            raise OSError(errno.ETIMEDOUT, "files read before this one still hang; is a network disk away?")

    def end(self) -> None:
        """A call has come back."""
        self._free.release()


_SHARED = Hanging()


def in_time(call: Callable[[], T], seconds: float = FILE_SECONDS, hanging: Hanging = _SHARED) -> T:
    """What `call` returns or raises, which looks at a disk. It goes on by itself where it takes longer.

    Raises OSError where it is not over in time, or too many of `hanging` are not yet (ETIMEDOUT), or there is no thread
    for it (EAGAIN).
    """
    return _Call(call, hanging).result(seconds)


class _Call(Generic[T]):
    """A call on a thread of its own: a network disk that hangs holds that, and nobody who waits."""

    def __init__(self, call: Callable[[], T], hanging: Hanging) -> None:
        self._call, self._hanging = call, hanging
        self._found: list[T] = []
        self._error: Exception | None = None

    def result(self, seconds: float) -> T:
        """See `in_time`."""
        self._hanging.begin()
        thread = threading.Thread(target=self._run, name="file", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._hanging.end()
            raise OSError(errno.EAGAIN, "no thread to read it with") from None
        thread.join(seconds)
        if thread.is_alive():
            raise OSError(errno.ETIMEDOUT, f"not read within {seconds:g} seconds")
        if self._error is not None:
            raise self._error
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._call())
        except Exception as error:  # raised by whoever waits
            self._error = error
        finally:
            self._hanging.end()


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
