"""Changing a file that others read meanwhile: whole or not at all, with a way back that needs no room on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.errors import EdgeinferError, InputError, TemporaryError, unexpected, unreadable
from edgeinfer.guard.files import read_small

UNTOUCHED = "nothing was changed"


class ChangedError(EdgeinferError):
    """Somebody else has changed the file since it was read."""

    exit_code = 75


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a file is, and who may do what with it; None leaves that to the system."""

    uid: int | None
    gid: int | None
    mode: int

    @classmethod
    def of(cls, path: Path) -> Owner:
        """As the file's own. Raises OSError."""
        status = path.stat()
        return cls(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


@dataclass(frozen=True, slots=True)
class Change:
    """`path` from the bytes `old` to `new`, None where there is no file; `before` keeps the old ones.

    A process that is killed leaves the old bytes or the new ones.
    """

    path: Path
    old: bytes | None
    new: bytes | None
    before: Path
    owner: Owner
    limit: int

    def make(self) -> None:
        """Raises ChangedError where it does not hold `old`, and what the disk says; nothing is changed then."""
        made: list[Path] = []
        try:
            with _told(self.path):
                new = self._prepared(self.path, self.new, made)
                old = self._prepared(self.before, self.old, made)
                self._expect(self.old)
                if old is not None:
                    old.replace(self.before)
                if new is None:
                    self.path.unlink()
                else:
                    new.replace(self.path)
        finally:
            for path in made:
                path.unlink(missing_ok=True)
        _settle(self.path.parent)

    def undo(self) -> None:
        """Puts the old bytes back, which needs no room. Raises as `make` does."""
        with _told(self.path):
            self._expect(self.new)
            if self.old is None:
                self.path.unlink()
            else:
                self.before.replace(self.path)
        _settle(self.path.parent)

    def forget(self) -> None:
        """Does without the way back."""
        with contextlib.suppress(OSError):
            self.before.unlink()

    def _expect(self, data: bytes | None) -> None:
        if content(self.path, self.limit) != data:
            raise ChangedError(f"{self.path}: somebody else has changed it meanwhile", "read it again")

    def _prepared(self, path: Path, data: bytes | None, made: list[Path]) -> Path | None:
        """The bytes in a file beside `path`, on the disk."""
        if data is None:
            return None
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)  # of one that was killed
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        made.append(beside)
        with os.fdopen(descriptor, "wb") as file:
            _give(descriptor, self.owner)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        return beside


def content(path: Path, limit: int) -> bytes | None:
    """The bytes of a small file; None where there is none. Raises EdgeinferError."""
    try:
        return read_small(path, limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None


def _give(descriptor: int, owner: Owner) -> None:
    status = os.fstat(descriptor)
    uid = -1 if owner.uid in (None, status.st_uid) else owner.uid
    gid = -1 if owner.gid in (None, status.st_gid) else owner.gid
    if (uid, gid) != (-1, -1):
        try:
            os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
        except PermissionError:
            raise PermissionError(1, "it belongs to another user or group, and would not any more") from None
    os.fchmod(descriptor, owner.mode)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        known = unexpected("", error)
        if isinstance(known, TemporaryError):
            raise TemporaryError(f"{path}: {error.strerror or error}; {UNTOUCHED}", known.hint) from None
        hint = "change it as its owner, or as root, then call edgeinfer reload"
        raise InputError(f"{path}: {error.strerror or error}; {UNTOUCHED}", hint) from None


def _settle(folder: Path) -> None:
    """Has the disk know of a new name; a file system that can't be asked for that does what it does."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
