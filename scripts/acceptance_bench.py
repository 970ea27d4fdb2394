"""What the trials of `acceptance-jetson` work with: verdicts, and a bench that runs programs and keeps their output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from edgeinfer.guard.redaction import redact

ROOT = Path(__file__).parent.parent
LONG_S = 7200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial came to, and what it saw."""

    outcome: Literal["confirmed", "refuted", "not tested"]
    evidence: str


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    code: int
    output: str

    @property
    def last(self) -> str:
        """Its last line."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.code}"


@dataclass(frozen=True)
class Bench:
    """Where trials run programs; each one's whole output is kept in `folder`."""

    folder: Path
    quick: bool = False
    cameras: tuple[str, ...] = ()

    def run(self, name: str, *argv: str, timeout_s: float = 600, **environ: str) -> Done:
        """Runs a program to its end and keeps what it prints as NAME.txt."""
        try:
            done = subprocess.run(  # noqa: S603 (programs that the trials name)
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=timeout_s,
                cwd=ROOT,
                env={**os.environ, **environ},
            )
            found = Done(done.returncode, done.stdout)
        except FileNotFoundError:
            found = Done(127, f"{argv[0]} is not installed")
        except subprocess.TimeoutExpired as error:
            found = Done(124, f"{(error.stdout or b'').decode(errors='replace')}\nno end within {timeout_s:.0f} s")
        said = f"$ {' '.join(argv)}\n{found.output}\nexit code {found.code}\n"
        (self.folder / f"{name}.txt").write_text(redact(said))  # the folder is made to be shown to others
        return found

    def edgeinfer(self, name: str, *arguments: str, timeout_s: float = 600) -> Done:
        """Runs edgeinfer."""
        return self.run(name, sys.executable, "-m", "edgeinfer", *arguments, timeout_s=timeout_s)

    def python(self, name: str, code: str) -> Done:
        """Runs a piece of Python in a process of its own."""
        return self.run(name, sys.executable, "-c", code)

    def tests(self, name: str, *arguments: str) -> Verdict:
        """Runs tests of the suite."""
        done = self.run(name, sys.executable, "-m", "pytest", "-q", "-ra", *arguments, timeout_s=LONG_S)
        if done.code == 0 and " passed" not in done.last:
            return Verdict("not tested", done.last)
        return judged(done.code == 0, done.last)

    @cached_property
    def doctor(self) -> dict[str, Any]:
        """What `edgeinfer doctor --json` says; empty where it says nothing."""
        done = self.edgeinfer("doctor", "doctor", "--json")
        try:
            return dict(json.loads(done.output[done.output.index("{") :]))
        except ValueError:
            return {}

    def fact(self, name: str) -> Any:
        """A value of doctor's; None where it is unknown."""
        return (self.doctor.get(name) or {}).get("value")


@dataclass(frozen=True, slots=True)
class Trial:
    """An assumption, in words, and how it is tried."""

    assumption: str
    attempt: Callable[[Bench], Verdict]


def judged(holds: bool, evidence: str) -> Verdict:
    """Confirmed or refuted."""
    return Verdict("confirmed" if holds else "refuted", evidence)
