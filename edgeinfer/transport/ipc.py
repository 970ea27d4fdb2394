"""Whose an IPC path is: ZeroMQ would take over whatever lies there."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import TextIO

from edgeinfer.errors import ConfigError, TemporaryError
from edgeinfer.guard.ownership import folder_writers, writers


def lock_ipc(endpoint: str) -> TextIO | None:
    """The lock of an IPC endpoint's path, which says whose it is while it is open; None for any other endpoint.

    ZeroMQ takes over whatever lies at the path, be it a daemon's socket or a file. Raises ConfigError where something
    else lies there or others could put something there, TemporaryError where a daemon has it.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc://") or path.name == "*":
        return None
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"publish.bind: {endpoint}: a file that is no socket lies there", "choose another path")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(endpoint, error) from None
    _check_folder(path.parent, endpoint)
    lock = _open_lock(Path(f"{path}.lock"), endpoint)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise TemporaryError(
            f"publish.bind: {endpoint} is in use: already running as PID {owner}", "--bind chooses another"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _check_folder(folder: Path, endpoint: str) -> None:
    """Whoever may write into the folder could put a socket of his own in the place of ours."""
    try:
        who = folder_writers(folder)
    except OSError as error:
        raise _refused(endpoint, error) from None
    if who:
        raise ConfigError(
            f"publish.bind: {endpoint}: {folder} is no safe place for a socket: {who}",
            "choose a folder of your own, or chmod go-w it",
        )


def _open_lock(path: Path, endpoint: str) -> TextIO:
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640), "r+")
    except OSError as error:
        raise _refused(endpoint, error) from None
    if who := writers(os.fstat(file.fileno())):
        file.close()
        raise ConfigError(f"publish.bind: {endpoint}: {path}: {who}", "remove it, or choose another path")
    return file


def _refused(endpoint: str, error: OSError) -> ConfigError:
    return ConfigError(f"publish.bind: {endpoint}: {error.strerror or error}", "choose another path")
