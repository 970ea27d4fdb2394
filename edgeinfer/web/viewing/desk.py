"""What the page may ask of the configuration. The daemon has the one who answers; no file is touched in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

Keep = Literal["restart", "file"]


class ConfigView(Struct, frozen=True, kw_only=True):
    """The configuration as it is. `text` is the file's; `effective` all keys that are in force, without secrets."""

    path: str | None
    reloadable: bool
    text: str | None
    effective: dict[str, Any]


class Mistake(Struct, frozen=True, kw_only=True):
    """Something wrong in a text. Places count from 1, and are null where there is none."""

    message: str
    hint: str = ""
    key: str = ""
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
    """How a reload went."""

    ok: bool
    text: str
    changes: list[str] = []


class ConfigDesk(Protocol):
    """Every call may block, and comes from a thread that may be blocked."""

    def view(self, unredacted: bool = False) -> ConfigView:
        """The configuration; with its secrets for those who may edit it."""

    def check(self, text: str) -> CheckReport:
        """Checks a text as if it were the file's."""

    def reload(self, text: str | None = None) -> Outcome:
        """Reads the file again, or first writes `text` to it. Waits for the reload's end."""

    def set_source(self, name: str, table: Mapping[str, Any], keep: Keep) -> Outcome:
        """Adds a source, or changes it. Waits for the reload's end."""

    def remove_source(self, name: str, keep: Keep) -> Outcome:
        """Takes a source out. Waits for the reload's end."""


class NoDesk:
    """Nobody answers: only for what has no configuration to change."""

    def view(self, unredacted: bool = False) -> ConfigView:
        """See `ConfigDesk.view`."""
        return ConfigView(path=None, reloadable=False, text=None, effective={})

    def check(self, text: str) -> CheckReport:
        """See `ConfigDesk.check`."""
        return CheckReport(ok=False, text="there is no configuration here")

    def reload(self, text: str | None = None) -> Outcome:
        """See `ConfigDesk.reload`."""
        return Outcome(ok=False, text="there is no configuration here")

    def set_source(self, name: str, table: Mapping[str, Any], keep: Keep) -> Outcome:
        """See `ConfigDesk.set_source`."""
        return self.reload()

    def remove_source(self, name: str, keep: Keep) -> Outcome:
        """See `ConfigDesk.remove_source`."""
        return self.reload()
