"""What ended the process last time: written as JSON when it ends badly, told in `status` after the restart.

STATE/last_crash.json    the last bad end
STATE/running/PID.json   a run that is going on, locked by it; one that nobody holds ended without a word
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import stat
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeinfer import __version__
from edgeinfer.config.folders import own_folder
from edgeinfer.guard.files import open_anything
from edgeinfer.guard.limits import MAX_STACKS
from edgeinfer.guard.printable import printable
from edgeinfer.guard.redaction import redact

log = logging.getLogger(__name__)

MAX_FILE = 1 << 20
KILLED = "killed"
_MARKER = re.compile(r"\d+\.json")


class Crash(Struct, frozen=True, kw_only=True):
    """A bad end. `code` and `text` say why; `stage` is the one that stood still, where it was one.

    `stacks` are those of all threads; `t_ns` is wall time, `uptime_s` seconds since the start.
    """

    code: str
    text: str
    stage: str = ""
    stacks: str = ""
    version: str = __version__
    model: str = ""
    backend: str = ""
    engine_key: str = ""
    pid: int = 0
    boot_id: str = ""
    t_ns: int = 0
    uptime_s: float = 0.0


class Run(Struct, frozen=True, kw_only=True):
    """What is known of a run while it goes on."""

    pid: int
    boot_id: str
    version: str = __version__
    model: str = ""
    backend: str = ""
    engine_key: str = ""


def state_root(environ: Mapping[str, str] = os.environ) -> Path:
    """systemd's $STATE_DIRECTORY, else $XDG_STATE_HOME/edgeinfer, else ~/.local/state/edgeinfer."""
    return own_folder(environ, "STATE_DIRECTORY", "XDG_STATE_HOME", ".local/state")


def boot_id() -> str:
    """The kernel's id of this boot (random(4)), empty where there is none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def stacks() -> str:
    """The Python stacks of all threads, the one that asks last. No locals, so no credentials."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] == own)  # noqa: SLF001 (there is no other)
    parts = [f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames]
    return redact("\n".join(parts))[:MAX_STACKS]


class CrashLog:
    """The folder of `last_crash.json`. What can't be written there is lost, and nothing fails for it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "last_crash.json"

    def write(self, crash: Crash) -> None:
        """Keeps a bad end in place of the one before; whole or not at all."""
        safe = msgspec.structs.replace(crash, text=printable(crash.text), stacks=redact(crash.stacks)[:MAX_STACKS])
        temporary = self._root / f".last_crash.{secrets.token_hex(4)}"
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with temporary.open("xb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(safe), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            log.warning("%s: can't be written (%s)", self._path, error.strerror)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def read(self) -> Crash | None:
        """The last bad end, if there was one that can be read."""
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(MAX_FILE), type=Crash)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s: can't be read (%s)", self._path, error)
            return None

    def begin(self, run: Run) -> RunMarker:
        """Marks a run as going on, after a look for runs that ended without a word: killed, most likely.

        The newest of those is written as the last crash. Another boot's are not: the machine went down with them.
        """
        folder = self._root / "running"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for lost in sorted(_lost(folder), key=lambda item: item[0]):
                self._tell_of(*lost, run.boot_id)
        except OSError as error:
            log.warning("%s: can't be used (%s); crashes are not remembered", folder, error.strerror)
        return RunMarker(folder / f"{run.pid}.json", run)

    def _tell_of(self, t_ns: int, run: Run, now_boot_id: str) -> None:
        if run.boot_id == now_boot_id:
            text = "the process ended without a word: killed, or aborted by systemd; its log has more"
            self.write(
                Crash(
                    code=KILLED,
                    text=text,
                    version=run.version,
                    model=run.model,
                    backend=run.backend,
                    engine_key=run.engine_key,
                    pid=run.pid,
                    boot_id=run.boot_id,
                    t_ns=t_ns,
                )
            )


class RunMarker:
    """A file that is locked while a run goes on and gone after a run that ended as it should."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path, self._run = path, run
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write()

    def note(self, backend: str, engine_key: str) -> None:
        """What runs the model now."""
        if (backend, engine_key) != (self._run.backend, self._run.engine_key):
            self._run = msgspec.structs.replace(self._run, backend=backend, engine_key=engine_key)
            self._write()

    def close(self) -> None:
        """The run ends as it should, or has said why not."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, msgspec.json.encode(self._run), 0)


def _lost(folder: Path) -> Iterator[tuple[int, Run]]:
    """The runs in `folder` that nobody holds any more, with the time of their last word. Their files are removed.

    Nothing else is: somebody may have files of his own there. An empty one is what a full disk left of ours.
    """
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError), open_anything(path, follow=False) as file:
            status = os.fstat(file.fileno())
            if not (_MARKER.fullmatch(path.name) and stat.S_ISREG(status.st_mode)):
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run = msgspec.json.decode(file.read(MAX_FILE), type=Run) if status.st_size else None
            path.unlink()
            if run is not None:
                yield status.st_mtime_ns, run


def now_ns() -> int:
    """Wall time, to be shown and never to be reckoned with."""
    return time.time_ns()
