"""Where the program's own files live."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def own_folder(environ: Mapping[str, str], systemd: str, xdg: str, fallback: str) -> Path:
    """The folder of edgeinfer that systemd names in $`systemd`, else the one in $`xdg`, else in ~/`fallback`.

    Of several that systemd names the first one counts; by the XDG Base Directory Specification a relative path doesn't.
    """
    if given := environ.get(systemd, "").split(":")[0]:
        return Path(given)
    base = environ.get(xdg, "")
    return (Path(base) if base.startswith("/") else Path.home() / fallback) / "edgeinfer"
