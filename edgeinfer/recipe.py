"""How edgeinfer is installed: one recipe for a PC and for a Jetson, which pages, remedies and commands all show.

On a Jetson TensorRT comes from JetPack, as a package of the system's Python: hence an environment that sees those
(`--system-site-packages`). The journal's library comes from Debian in both cases, as pip would have to compile it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VENV = "/opt/edgeinfer"
"""An environment that a service can use: everybody can read it."""
BINDINGS = "python3-gi gir1.2-gstreamer-1.0"
"""What a Python needs to use GStreamer: PyGObject, and GStreamer's description. On Ubuntu neither brings the other."""
RELEASE = Path("etc/nv_tegra_release")
DEVICE_TREES = (Path("proc/device-tree"), Path("sys/firmware/devicetree/base"))
"""The first is a link to the second, which is there also where /proc is a container's own."""
_MAJOR = re.compile(r"# R(\d+) ")


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine. `extras` are pip's, `packages` apt's."""

    name: str
    extras: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def apt(self) -> str:
        """The system's part."""
        return f"apt install {' '.join(self.packages)}"

    @property
    def venv(self) -> str:
        """The environment."""
        return f"python3 -m venv --system-site-packages {VENV}"

    @property
    def pip(self) -> str:
        """What goes into it, in a clone of edgeinfer's repository."""
        return f"{VENV}/bin/pip install '.[{','.join(self.extras)}]'"

    @property
    def commands(self) -> Sequence[str]:
        """All of it, in order, each to be run as root."""
        return self.apt, self.venv, self.pip


_EVERYWHERE = ("python3-venv", "python3-systemd")
_JETSON = (*_EVERYWHERE, "python3-libnvinfer", *BINDINGS.split())

PC = Machine("PC", ("cpu", "rtsp"), _EVERYWHERE)
JETPACK_6 = Machine("JetPack 6", ("cpu", "rtsp", "jetpack6"), _JETSON)
JETPACK_7 = Machine("JetPack 7", ("cpu", "rtsp", "jetpack7"), _JETSON)
L4T_OF_JETPACK_7 = 38


def pip(rest: str) -> str:
    """A command of the pip that installs into this Python, as whoever runs this has to type it.

    Where edgeinfer is installed, `edgeinfer[extra]` brings an extra of that one, wherever it came from.
    """
    own, ours = f"{sys.prefix}/bin/pip", os.access(sys.prefix, os.W_OK)
    if ours and shutil.which("pip") == own:
        return f"pip {rest}"
    return f"{'' if ours else 'sudo '}{own} {rest}"


def by_l4t(major: int | None) -> Machine:
    """The recipe by L4T's major release: 36 is JetPack 6, 38 and 39 are JetPack 7; None is no Jetson.

    JetPack 5 (35) and older have no Python that edgeinfer runs on; the recipe nearest to them is JetPack 6's.
    """
    if major is None:
        return PC
    return JETPACK_7 if major >= L4T_OF_JETPACK_7 else JETPACK_6


def on_jetson(root: Path = Path("/")) -> bool:
    """Whether the system at `root` is a Jetson's, or a container's on one. Cheap: looks at a few small files."""
    if (root / RELEASE).exists():
        return True
    for tree in DEVICE_TREES:
        try:
            if b"nvidia,tegra" in (root / tree / "compatible").read_bytes():
                return True
        except OSError:
            continue
    return False


def here(root: Path = Path("/")) -> Machine:
    """The recipe for the machine whose system lies at `root`, by /etc/nv_tegra_release ("# R36 (release), …")."""
    try:
        with (root / RELEASE).open(encoding="utf-8", errors="replace") as file:
            found = _MAJOR.match(file.read(200))
    except OSError:
        return PC
    return by_l4t(int(found[1]) if found else None)
