"""The list of the clients that are let in, while the daemon runs."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgeinfer.errors import ConfigError, InputError
from edgeinfer.transport.keys import read_list

PATIENCE_S = 2.0
"""A changed list that can't be read for want of descriptors keeps those out who come, and then cuts all who are in."""


class AllowList:
    """An allow list that is read again when its file changes. While it can't be read, nobody is let in.

    It keeps a descriptor in reserve, so that it can be read where this process has no other left; and if somebody else
    takes that one, it goes on trying. Thread-safe.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises what `read_list` raises: a wrong list is found at the start, not when the first client comes."""
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._keys = frozenset(client.public for client in read_list(path))
        self._starved_s: float | None = None
        self._spare: int | None = None
        self.error = ""

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    @property
    def is_current(self) -> bool:
        """False where the file has changed and no descriptor was left to read it: nobody new is let in then."""
        return self._starved_s is None

    def refresh(self) -> bool:
        """Reads the file again where it has changed; true where the list is another one now."""
        with self._lock:
            if self._spare is None:
                self._reserve()
            stamp = self._stamp()
            if stamp == self._seen and self._starved_s is None:
                return False
            before = self._keys
            if self._read():
                self._seen = stamp
            return self._keys != before

    def close(self) -> None:
        """Gives the descriptor in reserve back."""
        with self._lock:
            self._give_up_spare()

    def _read(self) -> bool:
        """False where it has to be tried again, for want of descriptors."""
        self._give_up_spare()  # for the file
        try:
            keys, self.error = frozenset(client.public for client in read_list(self._path)), ""
        except (InputError, ConfigError) as error:
            if _is_starved(error):
                return self._starve(error.message)
            keys, self.error = frozenset[str](), error.message
        finally:
            self._reserve()
        self._keys, self._starved_s = keys, None
        return True

    def _starve(self, message: str) -> bool:
        now = self._clock()
        self._starved_s = now if self._starved_s is None else self._starved_s
        self.error = message
        if now - self._starved_s >= PATIENCE_S:
            self._keys = frozenset()
        return False

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _stamp(self) -> tuple[int, ...]:
        with contextlib.suppress(OSError, ValueError):
            status = self._path.stat()
            return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid)
        return ()


def _is_starved(error: Exception) -> bool:
    cause = error.__context__
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)
