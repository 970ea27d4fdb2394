"""Whether this user may open the GPU's device nodes. CUDA itself only says that there is no GPU."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from edgeinfer.environment.facts import Note
from edgeinfer.environment.tree import Tree

PATTERNS = ("nvmap", "nvhost-ctrl*", "nvhost-*gpu", "nvgpu/*/*", "nvidiactl", "nvidia[0-9]*")
"""Below /dev, a Jetson's up to JetPack 6 and those of the ordinary driver; CUDA opens some of each."""


def read(tree: Tree) -> Iterator[Note]:
    """Yields closed_nodes, where there are any, with their group, such as "group video", as the source; and user."""
    paths = sorted({path for pattern in PATTERNS for path in (tree.root / "dev").glob(pattern)})
    closed = [path for path in paths if _is_device(path) and not os.access(path, os.R_OK)]
    if closed:
        yield Note("closed_nodes", tuple(str(path) for path in closed), _group(closed[0]))
        yield Note("user", _user(), f"uid {os.geteuid()}")


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group(path: Path) -> str:
    number = path.stat().st_gid
    try:
        return f"group {grp.getgrgid(number).gr_name}"
    except KeyError:
        return f"group {number}"
