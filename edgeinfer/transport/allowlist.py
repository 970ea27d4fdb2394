"""The list of the clients that are let in, while the daemon runs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgeinfer.errors import ConfigError, EdgeinferError, unreadable
from edgeinfer.guard.files import Hanging, in_time
from edgeinfer.guard.limits import FILE_SECONDS
from edgeinfer.transport.keys import read_list, read_list_here

PATIENCE_S = 2.0
"""A list that can't be read keeps those out who come, and then cuts all who are in."""
Stamp = tuple[int, ...]


class AllowList:
    """An allow list that is read again when its file changes. While it can't be read, nobody is let in.

    It keeps a descriptor in reserve, so that it can be read where this process has no other left; whatever else is in
    the way, it goes on trying. Only `refresh` and `close` may wait; the rest looks at memory. Thread-safe.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, seconds: float = FILE_SECONDS) -> None:
        """Raises what `read_list` raises: a wrong list is found at the start, not when the first client comes.

        `seconds` is how long its disk may take.
        """
        self._path, self._clock, self._seconds = path, clock, seconds
        self._lock = threading.Lock()
        self._hanging = Hanging()  # of its own: it is tried for ever, and others' files may be on a disk that answers
        self._keys = frozenset(client.public for client in read_list(path))
        self._seen: Stamp = ()  # read once more at the first refresh
        self._starved_s: float | None = None
        self._spare: int | None = None
        self.error = ""

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    @property
    def is_current(self) -> bool:
        """False where the file can't be read at present: nobody new is let in then."""
        return self._starved_s is None

    def refresh(self) -> bool:
        """Reads the file again where it has changed; true where the list is another one now."""
        with self._lock:
            before = self._keys
            if self._spare is None:
                self._reserve()
            try:
                self._read()
            except EdgeinferError as error:
                self._starve(error.message)
            except OSError as error:
                self._starve(unreadable(self._path, error).message)
            except Exception as error:  # no memory, or a bug: nobody comes in because of it
                self._starve(f"{self._path}: {type(error).__name__}: {error}")
            finally:
                if self._spare is None:
                    self._reserve()
            return self._keys != before

    def close(self) -> None:
        """Gives the descriptor in reserve back."""
        with self._lock:
            self._give_up_spare()

    def _read(self) -> None:
        """Raises OSError, InputError or TemporaryError where it has to be tried again."""
        stamp = in_time(lambda: _stamp(self._path), self._seconds, self._hanging)
        if stamp == self._seen and self._starved_s is None:
            return
        self._give_up_spare()  # for the file
        try:
            clients = in_time(lambda: read_list_here(self._path), self._seconds, self._hanging)
            keys, self.error = frozenset(client.public for client in clients), ""
        except ConfigError as error:  # of what is in the file, or whose it is: final until it changes
            keys, self.error = frozenset[str](), error.message
        self._keys, self._seen, self._starved_s = keys, stamp, None

    def _starve(self, message: str) -> None:
        now = self._clock()
        self._starved_s = now if self._starved_s is None else self._starved_s
        self.error = message
        if now - self._starved_s >= PATIENCE_S:
            self._keys = frozenset()

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid)
