"""What the page may ask of the configuration. The daemon has the one who answers; no file is touched in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

from edgeinfer.errors import EdgeinferError

Keep = Literal["restart", "file"]


class Origin(Struct, frozen=True, kw_only=True):
    """Where a source comes from: the configuration's file or a drop-in, at `place`; a drop-in that the API has written
    (`api`); the command line; or the API alone, until the restart (`memory`). `removable`: the API can take it out.
    """

    kind: Literal["file", "drop-in", "api", "command-line", "memory"]
    place: str | None = None
    removable: bool = False


class ConfigView(Struct, frozen=True, kw_only=True):
    """The configuration as it is. `text` is the file's, null where there is none, or none that can be shown without its
    passwords; `digest` names this very text when it comes back, until the daemon's end. `effective` holds all keys that
    are in force, without secrets. `origins` tells of each source where it comes from.
    """

    path: str | None
    reloadable: bool
    text: str | None
    effective: dict[str, Any]
    digest: str | None = None
    origins: dict[str, Origin] = {}


class Mistake(Struct, frozen=True, kw_only=True):
    """Something wrong in a text. Places count from 1, and are null where there is none. `file` is where: it may
    be a drop-in.
    """

    message: str
    hint: str = ""
    key: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    end_column: int | None = None


class CheckReport(Struct, frozen=True, kw_only=True):
    """What `edgeinfer check` says of a text, what a reload would change, and why one is not possible."""

    ok: bool
    text: str
    errors: list[Mistake] = []
    changes: list[str] = []
    refused: str | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """How a reload went. `digest` is that of the text that was written, if one was."""

    ok: bool
    text: str
    changes: list[str] = []
    digest: str | None = None


class NoSuchSourceError(EdgeinferError):
    """There is no source of that name."""

    exit_code = 66


class BadNameError(EdgeinferError):
    """What can be no source's name."""

    exit_code = 78


class BusyError(EdgeinferError):
    """Somebody else's change has not come to its end."""

    exit_code = 75


class UnfinishedError(EdgeinferError):
    """The reload goes on, and nobody waits for it any more."""

    exit_code = 75


class ConfigDesk(Protocol):
    """Every call may block, and comes from a thread that may be blocked. What is refused raises EdgeinferError: one of
    those below where there is more to say than that.
    """

    def view(self, unredacted: bool = False) -> ConfigView:
        """The configuration; with its secrets for those who may edit it."""

    def check(self, text: str, trusted: bool = False) -> CheckReport:
        """Checks a text as if it were the file's; looks at the files and code that it names where whoever asks is
        trusted, and writes nothing.
        """

    def reload(self, text: str | None = None, digest: str | None = None) -> Outcome:
        """Reads the file again, or first writes `text` to it, which replaces the text with that digest and no other.
        Waits for the reload's end.
        """

    def set_source(self, name: str, table: Mapping[str, Any], keep: Keep) -> Outcome:
        """Adds a source, or changes it. Waits for the reload's end."""

    def remove_source(self, name: str) -> Outcome:
        """Takes a source out that came through here. Waits for the reload's end."""


class NoDesk:
    """Nobody answers: only for what has no configuration to change."""

    def view(self, unredacted: bool = False) -> ConfigView:
        """See `ConfigDesk.view`."""
        return ConfigView(path=None, reloadable=False, text=None, effective={})

    def check(self, text: str, trusted: bool = False) -> CheckReport:
        """See `ConfigDesk.check`."""
        return CheckReport(ok=False, text="there is no configuration here")

    def reload(self, text: str | None = None, digest: str | None = None) -> Outcome:
        """See `ConfigDesk.reload`."""
        return Outcome(ok=False, text="there is no configuration here")

    def set_source(self, name: str, table: Mapping[str, Any], keep: Keep) -> Outcome:
        """See `ConfigDesk.set_source`."""
        return self.reload()

    def remove_source(self, name: str) -> Outcome:
        """See `ConfigDesk.remove_source`."""
        return self.reload()
