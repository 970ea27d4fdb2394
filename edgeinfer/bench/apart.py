"""A run of the pipeline in a fresh process: what earlier runs have left in memory would count as the daemon's.

    python -m edgeinfer.bench.apart

It reads an `Order` from its standard input, and the last line of its standard output is an `Outcome`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import msgspec
from msgspec import Struct

from edgeinfer import errors
from edgeinfer.bench.figures import PipelineRun
from edgeinfer.bench.memory import images
from edgeinfer.bench.ways import FROM_MEMORY, Way, configured
from edgeinfer.config.settings import Config
from edgeinfer.errors import EdgeinferError, FatalError
from edgeinfer.guard.confine import die_with


class Order(Struct, frozen=True):
    """What to run: see `configured`. `parent` is the process that orders it."""

    way: Way
    overrides: list[tuple[str, Any]]
    frames: int
    clip: str
    camera: str
    parent: int

    def config(self) -> Config:
        """The daemon's configuration."""
        return configured(self.way, self.overrides, self.frames, self.clip, self.camera)


class Outcome(Struct, frozen=True):
    """The run, or why there was none: the name of an error's class, its message and its hint."""

    run: PipelineRun | None = None
    error: tuple[str, str, str] | None = None


def run_apart(order: Order) -> PipelineRun:
    """Runs it and waits for its end. Raises what the run raises, and FatalError where its process has died."""
    command = [sys.executable, "-m", "edgeinfer.bench.apart"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 (our own)
        try:
            told = process.communicate(msgspec.json.encode(order))[0].strip()
        finally:
            process.terminate()
    try:
        outcome = msgspec.json.decode(told.rpartition(b"\n")[2], type=Outcome)
    except msgspec.DecodeError:
        raise FatalError(f"a run of the pipeline ended with code {process.returncode}", "see its lines above") from None
    if outcome.run is not None:
        return outcome.run
    raise _error(*(outcome.error or ("", "a run of the pipeline was interrupted", "")))


def _error(name: str, message: str, hint: str) -> EdgeinferError:
    kind = getattr(errors, name, FatalError)
    known = isinstance(kind, type) and issubclass(kind, EdgeinferError)
    return kind(message, hint) if known else FatalError(message, hint)


def main() -> None:
    """Entry point of the process."""
    from edgeinfer.bench.measure import pipeline_run  # noqa: PLC0415 (not in the process that only orders it)

    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    die_with(order.parent, signal.SIGTERM)
    try:
        if order.way.kind in FROM_MEMORY:
            images()  # which are no source's
        outcome = Outcome(run=pipeline_run(order.config()))
    except EdgeinferError as error:
        outcome = Outcome(error=(type(error).__name__, error.message, error.hint))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(outcome) + b"\n")


if __name__ == "__main__":
    main()
