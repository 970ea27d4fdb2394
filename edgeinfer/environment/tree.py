"""Reads files below a root as the machine that owns them would, and never anything outside it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from edgeinfer.environment.facts import Fault
from edgeinfer.errors import InputError
from edgeinfer.guard.files import open_anything

SMALL = 1 << 16
"""Bytes read of a file that is expected to be short."""
MAX_LINKS = 40
"""What Linux follows before it says ELOOP."""
ABSENT = (errno.ENOENT, errno.ENOTDIR)


class Tree:
    """A root folder. Paths are given without the leading slash.

    What can't be read is noted in `faults`, not raised.
    """

    def __init__(self, root: Path) -> None:
        """Raises InputError if `root` is no folder."""
        try:
            self.root = root.resolve(strict=True)
            is_folder = self.root.is_dir()
        except (OSError, RuntimeError, ValueError):
            is_folder = False
        if not is_folder:
            hint = "give the root of a machine or of a captured tree"
            raise InputError(f"{root} is not a folder that can be read", hint)
        self.faults: list[Fault] = []

    @property
    def is_live(self) -> bool:
        """Whether the root is this machine's own."""
        return self.root == Path("/")

    def resolve(self, path: str) -> Path | None:
        """Follows symbolic links inside the root: an absolute one starts at the root, and `..` stops there.

        None where links go round in a circle.
        """
        done: list[str] = []
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done[-1:] = []
                continue
            target = _link_target(self.root.joinpath(*done, part))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                self.note(path, "too many symbolic links")
                return None
            done = [] if target.startswith("/") else done
            todo.extend(target.split("/")[::-1])
        return self.root.joinpath(*done)

    def read(self, path: str, limit: int = SMALL, offset: int = 0) -> bytes | None:
        """At most `limit` bytes of a regular file; None where there is none or it can't be read."""
        real = self.resolve(path)
        if real is None:
            return None
        try:
            return _read_regular(real, limit, offset)
        except OSError as error:
            if error.errno not in ABSENT:
                self.note(path, error.strerror or type(error).__name__)
            return None

    def text(self, path: str, limit: int = SMALL) -> str | None:
        """As `read`; bytes that are no UTF-8 become U+FFFD."""
        data = self.read(path, limit)
        return None if data is None else data.decode("utf-8", "replace")

    def names(self, path: str) -> list[str]:
        """The sorted names in a folder; empty where there is none or it can't be read."""
        real = self.resolve(path)
        try:
            return sorted(entry.name for entry in real.iterdir()) if real else []
        except OSError as error:
            if error.errno not in ABSENT:
                self.note(path, error.strerror or type(error).__name__)
            return []

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder that we may know of."""
        real = self.resolve(path)
        return real is not None and os.path.lexists(real)

    def note(self, path: str, message: str) -> None:
        """Keeps a fault of a file once."""
        fault = Fault(f"/{path}", message)
        if fault not in self.faults:
            self.faults.append(fault)


def _link_target(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None


def _read_regular(path: Path, limit: int, offset: int) -> bytes:
    with open_anything(path) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        file.seek(min(offset, status.st_size))  # what a broken file points to may be anywhere
        return file.read(limit)
