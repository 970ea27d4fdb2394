"""Plugins from elsewhere: one file on PYTHONPATH, as somebody who extends edgeinfer writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, dotted: str, code: str) -> None:
    """Makes `code` the module `dotted`, in a package of its own in `folder`, for the length of a test."""
    package, _, module = dotted.partition(".")
    (folder / package).mkdir(exist_ok=True)
    (folder / package / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    for name in (package, dotted):
        monkeypatch.setitem(sys.modules, name, sys)  # so that what is there now comes back, or nothing
        del sys.modules[name]
