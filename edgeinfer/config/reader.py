"""The configuration that a command line describes, read again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.config.settings import Config, Reading, read_config


@dataclass(frozen=True, slots=True)
class ConfigReader:
    """A file, if any, and what the command line puts over it. Calling it reads the configuration anew."""

    path: Path | None
    overrides: Sequence[tuple[str, Any]] = ()

    def __call__(self) -> Config:
        """Raises EdgeinferError."""
        return self.reading().config

    def reading(self, added: Mapping[str, Any] | None = None, text: str | None = None) -> Reading:
        """The same with its texts. `added` are further sources, `text` stands for the file's. Raises EdgeinferError."""
        more = [(f"sources.{name}", table) for name, table in (added or {}).items()]
        return read_config(self.path, [*self.overrides, *more], text)
