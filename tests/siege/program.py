"""What attacks and good subscribers run as: small programs, each a process that ends with whoever started it.

`python -m tests.siege.program MODULE FUNCTION {"its": "arguments"}`. Nobody's interpreter is shared, so that an attack
that is busy holds up neither the others nor who is watching.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeinfer.guard.confine import die_with

ROOT = Path(__file__).parent.parent.parent
PIPE = subprocess.PIPE
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(module: str, function: str, stdout: int = subprocess.DEVNULL, **arguments: Any) -> subprocess.Popen[str]:
    """Starts `function` of `tests.siege.MODULE`; the caller ends it. Call from a thread that lives as long."""
    command = [sys.executable, "-m", __name__, str(os.getpid()), module, function, json.dumps(arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Ends a program, stopped ones too."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def running(module: str, function: str, **arguments: Any) -> Iterator[None]:
    """A program for the length of a block."""
    process = start(module, function, **arguments)
    try:
        yield
    finally:
        end(process)


def main(parent: str, module: str, function: str, arguments: str) -> None:
    """The program itself."""
    die_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us; he ends us
    getattr(importlib.import_module(f"tests.siege.{module}"), function)(**json.loads(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
