"""Whether a folder is the engine cache: it says so itself, or was made by an edgeinfer that did not mark it yet.

Only in such a folder is anything written or removed: somebody may point `--cache-dir` at his home.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from edgeinfer.engine.errors import CacheError, NoCacheError, PlanError
from edgeinfer.engine.store import trust

MARKER = "CACHEDIR.TAG"
SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n# The engine cache of edgeinfer"
CONTENT = SIGNATURE + b", which removes what it has put here.\n"
"""Its first line is that of the Cache Directory Tagging Specification: backups leave such folders out."""

FOLDERS = ("engines", "tmp", "quarantine")
WORKSPACE = "build-"
KEY = re.compile(r"[0-9a-f]{64}")
LEFT = re.compile(r"(build-|tmp)[a-z0-9_]{8}(\.dead)?|[0-9a-f]{64}\.[0-9a-f]{8}")
"""What lies in tmp/: workspaces, also of versions without a marker, and engines that are being removed."""
_ENGINE_FILES = frozenset({"engine.plan", "manifest.json", "strikes"})
_HELPER = re.compile(r"[0-9a-f]{16,64}(\.[a-z]+)*")
_HELPERS = dict.fromkeys(("timing", "calibration", "tuning"), _HELPER)
_ENTRIES = {"engines": KEY, "quarantine": KEY, "tmp": LEFT, **_HELPERS}


def claim(root: Path) -> None:
    """Marks the folder as the cache, where it is one or is empty. Raises NoCacheError where it holds anything else.

    Raises UnsafeError for a marker that somebody else could have written, OSError where nothing can be read or written.
    """
    if is_marked(root):
        return
    check(root)
    descriptor = os.open(root / MARKER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(CONTENT)


def check(root: Path) -> None:
    """Raises NoCacheError where the folder bears no mark and is neither empty nor the cache of an older edgeinfer.

    Raises UnsafeError and OSError like `claim`.
    """
    stranger = None if is_marked(root) else _stranger(root)
    if stranger is not None:
        raise NoCacheError(
            f"{root}: no engine cache of edgeinfer: {stranger}", "give an empty folder, or one that is not there yet"
        )


def is_marked(root: Path) -> bool:
    """Whether the folder says of itself that it is the cache, in a file that nobody else could have written."""
    return _marker(root).startswith(SIGNATURE)


def is_engine(folder: Path) -> bool:
    """Whether a folder holds what an engine's does, and nothing besides. False for a link to one."""
    try:
        return _is_folder(folder) and all(
            entry.name in _ENGINE_FILES and not _is_folder(entry) for entry in folder.iterdir()
        )
    except OSError:
        return False


def _stranger(root: Path) -> str | None:
    """What an older edgeinfer would not have put there, or would have, in words; None where it may be a cache of it.

    That one always made all three folders.
    """
    names = {entry.name for entry in root.iterdir()}
    if MARKER in names and not CONTENT.startswith(_marker(root)):  # one that a full disk cut short is ours
        return f"{MARKER} is of another program"
    for name in sorted(names - {MARKER, "build.lock"}):
        found = _stranger_in(root / name)
        if found:
            return f"it holds {found!r}"
    lacking = sorted({*FOLDERS} - names)
    return f"it holds files, but no folder {lacking[0]!r}" if names - {MARKER} and lacking else None


def _stranger_in(folder: Path) -> str:
    name = folder.name
    if name not in _ENTRIES or not _is_folder(folder):
        return name
    for entry in sorted(folder.iterdir()):
        if not _ENTRIES[name].fullmatch(entry.name) or not _is_ours(name, entry):
            return f"{name}/{entry.name}"
    return ""


def _marker(root: Path) -> bytes:
    path = root / MARKER
    try:
        return trust.read_private(path, len(CONTENT)) if os.path.lexists(path) else b""
    except PlanError as error:
        raise CacheError(error.message, "give another folder") from None


def _is_ours(place: str, entry: Path) -> bool:
    if place in ("engines", "quarantine"):
        return is_engine(entry)
    return _is_folder(entry) if place == "tmp" else stat.S_ISREG(entry.lstat().st_mode)


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)
