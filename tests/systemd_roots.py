"""Roots of other systems, each with a systemd of its own, made with debootstrap in a folder that goes afterwards."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

UBUNTU = "http://archive.ubuntu.com/ubuntu"
UBUNTUS_KEYS = f"{UBUNTU}/pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb"
UBUNTUS_KEY = "F6ECB3762474EDA9D21B7022871920D1991BC93C"
"""Ubuntu Archive Automatic Signing Key (2018). By its fingerprint it may come from anywhere."""
DEBIANS_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = "systemd,dbus,procps,passwd"
DEBOOTSTRAP_S = 280


@dataclass(frozen=True, slots=True)
class System:
    """A release, and the version of systemd that it is here for."""

    name: str
    systemd: int
    ubuntu: bool = False


JAMMY = System("jammy", 249, ubuntu=True)
"""What JetPack 6 is made of."""
NOBLE = System("noble", 255, ubuntu=True)
"""What JetPack 7 is made of."""
TRIXIE = System("trixie", 257)


def why_not(system: System) -> str:
    """Why its root can't be made here; empty where it can be tried."""
    needed = ["debootstrap", "gpg", "gpgv", *(["curl", "dpkg-deb"] if system.ubuntu else [])]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if system.ubuntu or DEBIANS_KEYS.exists() else "no keys of Debian's archive"


def make(system: System, folder: Path) -> str:
    """Makes the root in `folder`/NAME. Returns what went wrong; empty where nothing did."""
    try:
        keys, mirror = (_ubuntus_key(folder), UBUNTU) if system.ubuntu else (DEBIANS_KEYS, _debians_mirror())
        command = ["debootstrap", f"--keyring={keys}", "--variant=minbase", f"--include={PACKAGES}", system.name]
        script = [f"/usr/share/debootstrap/scripts/{'gutsy' if system.ubuntu else 'sid'}"]  # newer ones are links to it
        _run([*command, str(folder / system.name), mirror, *script], DEBOOTSTRAP_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stdout or b"").decode("utf-8", "replace").splitlines()
        return f"{system.name}: no root: {error.cmd[0]}: {' '.join(said[-2:])[-300:]}"
    return ""


def _ubuntus_key(folder: Path) -> Path:
    """A key ring with the one key alone, taken from Ubuntu's own package."""
    package, home, keys = folder / "keys.deb", folder / "gnupg", folder / "ubuntu.gpg"
    home.mkdir(mode=0o700, exist_ok=True)
    _run(["curl", "--silent", "--fail", "--max-time", "60", "--output", str(package), UBUNTUS_KEYS])
    _run(["dpkg-deb", "-x", str(package), str(folder / "keys")])
    ring = folder / "keys/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    gpg = ["gpg", "--homedir", str(home), "--batch", "--no-autostart"]
    _run([*gpg, "--import", str(ring)])
    _run([*gpg, "--yes", "--output", str(keys), "--export", UBUNTUS_KEY])
    return keys


def _debians_mirror() -> str:
    """The one that this machine's apt uses."""
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(file.read_text(errors="replace") for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb .*?)\s*(https?://\S*debian/?)(?:\s|$)", text, re.MULTILINE)
    return found[1] if found else "http://deb.debian.org/debian"


def _run(argv: list[str], timeout_s: float = 90) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, env=environ)
