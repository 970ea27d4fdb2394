"""Roots of other systems, each with a systemd of its own, made with debootstrap in a folder that goes afterwards."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

DEBIANS_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = "systemd,dbus,procps,passwd"
DEBOOTSTRAP_S = 280


@dataclass(frozen=True, slots=True)
class System:
    """A release of Debian, and the version of systemd that it is here for.

    `packages` are what is needed in it besides. `old`: its C library is older than what this machine's Python was built
    with, so that no Python runs edgeinfer there.
    """

    name: str
    systemd: int
    packages: str
    old: bool = False


BULLSEYE = System("bullseye", 247, "python3-minimal", old=True)
TRIXIE = System("trixie", 257, "libffi8")
"""JetPack 6 has 249, JetPack 7 255: they lie between."""


def why_not() -> str:
    """Why no root can be made here; empty where it can be tried."""
    missing = [name for name in ("debootstrap", "gpgv") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if DEBIANS_KEYS.exists() else "no keys of Debian's archive"


def make(system: System, folder: Path) -> str:
    """Makes the root in `folder`/NAME. Returns what went wrong; empty where nothing did."""
    include = f"--include={PACKAGES},{system.packages}"
    command = ["debootstrap", f"--keyring={DEBIANS_KEYS}", "--variant=minbase", include, system.name]
    script = "/usr/share/debootstrap/scripts/sid"  # newer ones are links to it
    try:
        _run([*command, str(folder / system.name), _debians_mirror(), script], DEBOOTSTRAP_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stdout or b"").decode("utf-8", "replace").splitlines()
        return f"{system.name}: no root: {error.cmd[0]}: {' '.join(said[-2:])[-300:]}"
    return ""


def _debians_mirror() -> str:
    """The one that this machine's apt uses."""
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(file.read_text(errors="replace") for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb .*?)\s*(https?://\S*debian/?)(?:\s|$)", text, re.MULTILINE)
    return found[1] if found else "http://deb.debian.org/debian"


def _run(argv: list[str], timeout_s: float) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, env=environ)
