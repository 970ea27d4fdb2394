"""Networks that have been tried well, so that the next start need not try them again.

A file for each in the cache, named by everything that the verdict depends on. Who can write there can already choose
which engine we run.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from edgeinfer.engine.store import trust
from edgeinfer.engine.store.cache import Cache, default_root
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.limits import MAX_VERDICTS

FOLDER = "trials"
WELL = b"ran well\n"
DIGITS = 64


class Verdicts:
    """The verdicts in the usual cache. Where there is none, nothing is remembered, and nobody is bothered."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or default_root(os.environ)

    def known(self, *of: object) -> bool:
        """Whether a trial of exactly this went well."""
        try:
            folder = self._root / FOLDER
            for place in (self._root.resolve(), folder):
                trust.check_folder(place)
            path = folder / _name(of)
            well = trust.read_private(path) == WELL
            os.utime(path)
        except (EdgeinferError, OSError):
            return False
        return well

    def remember(self, *of: object) -> None:
        """The trial of this went well."""
        with suppress(EdgeinferError, OSError):
            path = Cache(self._root).file(FOLDER, _name(of))
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(WELL)
            fresh.rename(path)
            _forget(path.parent)


def _name(of: object) -> str:
    return hashlib.sha256(msgspec.json.encode(of, order="sorted")).hexdigest()


def _forget(folder: Path) -> None:
    """Removes the oldest of our own files, beyond so many."""
    ours = [entry for entry in os.scandir(folder) if len(entry.name) == DIGITS and entry.is_file(follow_symlinks=False)]
    ours.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns, reverse=True)
    for entry in ours[MAX_VERDICTS:]:
        Path(entry.path).unlink(missing_ok=True)
