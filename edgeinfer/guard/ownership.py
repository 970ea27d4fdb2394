"""Who may write a file: we and root, or somebody else too."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Set
from pathlib import Path


def writers(status: os.stat_result, trusted: Set[int] = frozenset()) -> str:
    """Who else could have written what has this status, in words; empty where only we, root or `trusted` users could.

    Group members count as others, but for a group that is its owner's own: Debian and Ubuntu give every user one and
    make files group-writable.
    """
    if status.st_uid not in {os.geteuid(), 0, *trusted}:
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return f"everybody may write it (mode {stat.S_IMODE(status.st_mode):04o})"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status):
        return f"group {status.st_gid} may write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def readers(status: os.stat_result) -> str:
    """Who else may read a secret of this status, in words; empty where nobody.

    root may keep one for a group, as systemd's credentials do; anybody else keeps it for himself.
    """
    hidden = stat.S_IRWXO | (stat.S_IWGRP if status.st_uid == 0 else stat.S_IRWXG)
    if status.st_mode & hidden:
        return f"others may read this secret (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def folder_writers(path: Path, trusted: Set[int] = frozenset()) -> str:
    """Who else could replace what lies in a folder; empty where nobody. A sticky folder keeps everybody's own safe."""
    status = path.stat()
    return "" if status.st_mode & stat.S_ISVTX else writers(status, trusted)


def _is_private_group(status: os.stat_result) -> bool:
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and not set(group.gr_mem) - {owner.pw_name}
