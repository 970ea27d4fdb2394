"""The error tree. Every error is one line for the operator and one exit code for whatever started the process.

Exit codes follow sysexits.h, so that systemd and shell scripts can tell "fix the config" from "try again".
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple, TypeVar

from edgeinfer.guard.foreign_words import tells_of_no_memory
from edgeinfer.guard.printable import printable
from edgeinfer.guard.scarcity import SCARCE

E = TypeVar("E", bound="EdgeinferError")


class Place(NamedTuple):
    """Where something stands in a file. Lines and columns count from 1, in characters; `end_column` is behind it."""

    file: str
    line: int
    column: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class EdgeinferError(Exception):
    """Base of every error that edgeinfer raises on purpose.

    `message` says what is wrong and where; `hint` says how to mend it. Both are kept to one line.
    `key` is the dotted key of a setting that is wrong, as it is spelled there; `of_name`: its name is, not its value.
    `place` is where that stands, once it is known; `message` begins with it then, and `said` does not.
    """

    exit_code = 70
    key: str | None = None
    of_name = False
    place: Place | None = None

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = self.said = printable(message)
        self.hint = printable(hint)
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)

    @classmethod
    def at(cls: type[E], key: str, text: str, hint: str = "", of_name: bool = False) -> E:
        """The error of one setting; its message begins with the setting's key."""
        error = cls(f"{key}: {text}" if key else text, hint)
        error.key, error.of_name = key, of_name
        return error

    def placed(self: E, file: object, place: Place | None) -> E:
        """The same error with its file, and its place there where that is known, before what it says."""
        error = type(self)(f"{place or file}: {self.message}", self.hint)
        error.key, error.of_name, error.place, error.said = self.key, self.of_name, place, self.said
        return error


class UsageError(EdgeinferError):
    """The command line makes no sense."""

    exit_code = 64


class InputError(EdgeinferError):
    """An input (camera, video, image, model file) is missing or can't be read."""

    exit_code = 66


class CameraError(InputError):
    """A camera that was reached, or was there, and gives no pictures now.

    `code` is the reason in its `status`; `lasting` marks what a person must mend (a password, a codec), so that it is
    tried again only now and then.
    """

    def __init__(self, code: str, message: str, hint: str = "", lasting: bool = False) -> None:
        super().__init__(message, hint)
        self.code = code
        self.lasting = lasting


class UnavailableError(EdgeinferError):
    """No usable device, or a library that the chosen part needs is not installed."""

    exit_code = 69


class FatalError(EdgeinferError):
    """The process can't go on and must be started again."""

    exit_code = 70


class StickyError(FatalError):
    """The GPU is lost to this process: nothing may be tried or freed any more, it must end at once."""


class TemporaryError(EdgeinferError):
    """It may well work later: a port in use, no memory, no disk space."""

    exit_code = 75


class OutOfMemoryError(TemporaryError):
    """The GPU's memory does not suffice for this, now. A smaller batch may fit, and what follows may too."""


class ConfigError(EdgeinferError):
    """The configuration is wrong; starting again would not help."""

    exit_code = 78


class StalledError(EdgeinferError):
    """A live source gave no frame within its read deadline. The capture thread decides what happens next."""

    exit_code = 66


TEMPORARY = SCARCE | {errno.ETIMEDOUT}
"""What says nothing of a file: memory, descriptors or threads ran out, or a network disk does not answer."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def unreadable(path: Path | str, error: OSError, hint: str = "") -> InputError | TemporaryError | ConfigError:
    """The error for a file that can't be read: TemporaryError where that is not the file's fault, ConfigError where it
    is too large or no regular file.
    """
    text = f"{path}: {error.strerror or error}"
    if error.errno in TEMPORARY:
        return TemporaryError(text, "try again")
    return ConfigError(text, hint) if error.errno in (errno.EFBIG, errno.EINVAL) else InputError(text)


def unexpected(prefix: str, error: BaseException, hint: str = "") -> EdgeinferError:
    """The error for what nobody foresaw; for want of memory, descriptors or room on a disk it may well work later."""
    said = f"{prefix}{type(error).__name__}: {error}"
    if is_lack_of_memory(error):
        return TemporaryError(said, "stop what else runs, or give it more memory")
    if isinstance(error, OSError) and error.errno in TEMPORARY | _NO_ROOM:
        return TemporaryError(said, "make room on the disk" if error.errno in _NO_ROOM else "try again")
    return EdgeinferError(said, hint)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether it was for want of memory that something failed: by its kind, or by all that a library says."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | OutOfMemoryError) or tells_of_no_memory(str(error))
