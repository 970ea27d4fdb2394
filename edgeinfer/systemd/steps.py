"""Changes to a machine, one at a time: each says what it does, does nothing where that is done already, and can be
shown without being done."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.printable import printable

Say = Callable[[str], None]
TIMEOUT_S = 180.0
"""A start of the daemon may take as long: `systemctl start` waits for READY."""


@dataclass(frozen=True, slots=True)
class Write:
    """A file with this content, mode and group (root's where the group does not exist here).

    `folder` is the mode of the folder that is made for it, whatever the umask.
    """

    path: Path
    content: bytes
    mode: int = 0o644
    group: str | None = None
    folder: int | None = None

    def __str__(self) -> str:
        return f"write {self.path}"

    def needed(self) -> bool:
        """Whether the file is another one than it should be."""
        try:
            return self.path.read_bytes() != self.content or (self.path.stat().st_mode & 0o777) != self.mode
        except OSError:
            return True

    def do(self) -> None:
        """Whole or not at all."""
        new = not self.path.parent.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if new and self.folder is not None:
            self._give(self.path.parent)
            self.path.parent.chmod(self.folder)
        temporary = self.path.with_name(f".{self.path.name}.new")
        with suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.content)
        self._give(temporary)
        temporary.chmod(self.mode)
        temporary.replace(self.path)

    def _give(self, path: Path) -> None:
        if self.group is not None:
            with suppress(KeyError, PermissionError):
                os.chown(path, -1, grp.getgrnam(self.group).gr_gid)


@dataclass(frozen=True, slots=True)
class Remove:
    """A file or folder that must not be there; `only_empty`: a folder, unless somebody else has put something in it."""

    path: Path
    only_empty: bool = False

    def __str__(self) -> str:
        return f"remove {self.path}"

    def needed(self) -> bool:
        """Whether it is there."""
        if self.only_empty:
            return self.path.is_dir() and not any(self.path.iterdir())
        return self.path.is_symlink() or self.path.exists()

    def do(self) -> None:
        """A link is removed, not what it points to."""
        if self.only_empty:
            self.path.rmdir()
        elif self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Call:
    """A program of the system.

    `optional`: its failure is told and the rest goes on. `counts`: what it changes is a reason to restart the service.
    """

    argv: Sequence[str]
    optional: bool = False
    counts: bool = False
    when: Callable[[], bool] = field(default=lambda: True)

    def __str__(self) -> str:
        return " ".join(self.argv)

    def needed(self) -> bool:
        """Whether there is anything to call for."""
        return self.when()

    def do(self) -> None:
        """Raises EdgeinferError with what the program said."""
        try:
            done = subprocess.run(self.argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeinferError(f"{self}: {error}", "is systemd installed and running?") from None
        if done.returncode != 0 and not self.optional:
            said = printable(done.stderr or done.stdout) or f"exit code {done.returncode}"
            raise EdgeinferError(f"{self}: {said}", "journalctl -xe has more")


Step = Write | Remove | Call


def perform(steps: Sequence[Step], say: Say, dry_run: bool = False) -> int:
    """Does what is needed, in order, and says each thing. Returns how many changes there were, of files mostly.

    Raises EdgeinferError where a step can't be done; those before it stay done, and a second run goes on from there.
    """
    changed = 0
    for step in steps:
        if not step.needed():
            if not isinstance(step, (Remove, Call)):
                say(f"unchanged: {step.path}")
            continue
        say(f"would {_verb(step)}" if dry_run else _verb(step))
        changed += not isinstance(step, Call) or step.counts
        if not dry_run:
            _do(step)
    return changed


def _verb(step: Step) -> str:
    return f"run {step}" if isinstance(step, Call) else str(step)


def _do(step: Step) -> None:
    try:
        step.do()
    except OSError as error:
        raise EdgeinferError(f"{step}: {error.strerror or error}", "run it as root: sudo") from None
