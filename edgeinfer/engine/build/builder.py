"""Runs a build in a child process: watched, bounded in memory, cancellable, and unable to take its parent along."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgeinfer import errors
from edgeinfer.engine import diagnose
from edgeinfer.engine import errors as engine_errors
from edgeinfer.engine.build.progress import BuildProgress, OnProgress, by_clock
from edgeinfer.engine.build.protocol import BuildRequest, Built, Event, Failed, Logged, Step, Warned
from edgeinfer.engine.errors import BuildCancelledError, BuildError, BuildKilledError
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.foreign_words import NVMAP_NO_MEMORY
from edgeinfer.guard.limits import MAX_BUILD_S, MIN_FREE_BYTES
from edgeinfer.guard.memory import meminfo, resident_bytes, total_bytes

POLL_S = 0.2
LOG_LINES = 60
READ_BYTES = 1 << 16
MAX_LAST_WORDS = 1 << 18
LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "INTERNAL_ERROR": logging.ERROR}
logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # TensorRT's log is shown to whom asks for it
CHILD = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "  # systemd's comes to the whole service at once
    "from edgeinfer.engine.build.worker import main; main()"
)


class BuildLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a build may take.

    memory_bytes: largest resident size of the child; None: seven eighths of all memory that there is for us.
    reserve_bytes: memory that must stay available on the machine, GPU memory included where that is shared.
    timeout_s: seconds. None: no limit.
    """

    memory_bytes: int | None = None
    reserve_bytes: int | None = MIN_FREE_BYTES
    timeout_s: float | None = MAX_BUILD_S


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """A finished build: the plan lies in the workspace. `log`: the last lines of TensorRT's log."""

    built: Built
    warnings: tuple[str, ...]
    log: tuple[str, ...]


@dataclass(slots=True)
class _Watch:
    """What is known of a running child."""

    on_progress: OnProgress
    estimate_s: float | None
    start: float = field(default_factory=time.monotonic)
    phase: str = "Starting"
    fraction: float | None = None
    shown: float | None = None
    warnings: list[str] = field(default_factory=list)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    result: Built | Failed | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Step):
            self.phase = event.phase
            self.fraction = self.fraction if event.fraction is None else event.fraction
            self.tick()
        elif isinstance(event, Warned):
            self.warnings.append(event.text)
        elif isinstance(event, Logged):
            self.log.append(event.text)
            logger.log(LEVELS.get(event.text.split()[0], logging.INFO), event.text)
        else:
            self.result = event

    def tick(self) -> None:
        elapsed = time.monotonic() - self.start
        fraction = by_clock(elapsed, self.estimate_s) if self.fraction is None else self.fraction
        self.shown = fraction if self.shown is None else max(fraction or 0.0, self.shown)
        self.on_progress(BuildProgress(self.phase, self.shown, elapsed, self.estimate_s))


def run_build(
    request: BuildRequest,
    limits: BuildLimits,
    on_progress: OnProgress,
    cancel: threading.Event,
    held: int,
    estimate_s: float | None,
    command: Sequence[str] = (sys.executable, "-c", CHILD),
) -> BuildOutcome:
    """Builds in a child process and waits for it. The child keeps the lock's descriptor `held` as long as it lives.

    Raises what the build raised, BuildCancelledError after `cancel`, BuildKilledError where memory ran out.
    The child is gone when this returns or raises.
    """
    watch = _Watch(on_progress, estimate_s)
    with _child(command, request, held) as child:
        try:
            _follow(child, watch, limits, cancel)
            code = child.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if isinstance(watch.result, Built):
        return BuildOutcome(watch.result, tuple(watch.warnings), tuple(watch.log))
    raise _failure(watch, code, Path(request.work))


def _child(command: Sequence[str], request: BuildRequest, held: int) -> subprocess.Popen[bytes]:
    """Starts the child in its own session, so that Ctrl-C reaches the parent alone, and in the private workspace."""
    package = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    with (Path(request.work) / "stderr").open("wb") as stderr:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=request.work,
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=(held,),
            start_new_session=True,
        )
    assert child.stdin is not None  # noqa: S101 (asked for above)
    with suppress(BrokenPipeError):  # then it is dead, and the rest of this module says so
        child.stdin.write(msgspec.json.encode(request) + b"\n")
        child.stdin.flush()
    return child


def _follow(child: subprocess.Popen[bytes], watch: _Watch, limits: BuildLimits, cancel: threading.Event) -> None:
    """Reads events until the child closes its output. Raises where it must not go on."""
    decoder = msgspec.json.Decoder(Event)
    for line in _lines(child):
        if line:
            watch.take(decoder.decode(line))
        else:
            watch.tick()
        _check(child.pid, limits, cancel, time.monotonic() - watch.start)


def _lines(child: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Whole lines of the child's output; an empty one whenever a moment passed without any."""
    assert child.stdout is not None  # noqa: S101 (asked for above)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(POLL_S):
                yield b""
                continue
            chunk = os.read(child.stdout.fileno(), READ_BYTES)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from filter(None, lines)


def _check(pid: int, limits: BuildLimits, cancel: threading.Event, elapsed: float) -> None:
    if cancel.is_set():
        raise BuildCancelledError(f"the build was cancelled after {elapsed:.0f} s", "nothing is left of it")
    if limits.timeout_s is not None and elapsed > limits.timeout_s:
        raise BuildCancelledError(
            f"the build took longer than {limits.timeout_s:g} s", "raise --timeout, or lower --opt-level"
        )
    used, left = resident_bytes(pid), available_bytes()
    most = total_bytes() * 7 // 8 if limits.memory_bytes is None else limits.memory_bytes
    if used > most:
        raise BuildKilledError(
            f"the build took {used >> 20} MiB of memory, and {most >> 20} MiB are allowed",
            "raise --memory, or lower --workspace or --opt-level",
        )
    if limits.reserve_bytes is not None and left < limits.reserve_bytes:
        raise BuildKilledError(
            f"the build was stopped with {left >> 20} MiB of memory left on this machine",
            "stop what else runs, lower --workspace, or add swap; then try again",
        )


def available_bytes() -> int:
    """Memory that can still be had on this machine without swapping; very much where the kernel does not say."""
    return meminfo().get("MemAvailable", sys.maxsize)


def _failure(watch: _Watch, code: int, work: Path) -> EdgeinferError:
    log, said = " ".join(list(watch.log)[-1:]), _said(work / "stderr")
    unexplained = watch.result is None or (isinstance(watch.result, Failed) and watch.result.kind in ("", "BuildError"))
    if unexplained and code != -signal.SIGKILL and (lack := NVMAP_NO_MEMORY.search(said)):
        return BuildKilledError(f"the build ran out of memory ({lack[0]})", diagnose.MEMORY[2])
    if isinstance(watch.result, Failed):
        kind = getattr(engine_errors, watch.result.kind or "BuildError", None) or getattr(errors, watch.result.kind)
        return kind(watch.result.message, watch.result.hint)  # type: ignore[no-any-return]  # a class of our own
    if code == -signal.SIGKILL:
        return BuildKilledError(
            "the build was killed, most likely for lack of memory",
            "see `dmesg`; stop what else runs, lower --workspace, or add swap; then try again",
        )
    if code < 0:
        return BuildError(
            f"TensorRT crashed in the build ({signal.Signals(-code).name}) {log}",
            "try --opt-level 0 or another precision",
        )
    return BuildError(
        f"the build ended with code {code} and no result: {' '.join(said.split()[-40:]) or log}", "see --verbose"
    )


def _said(path: Path) -> str:
    """The end of what the child and its libraries wrote to standard error."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_LAST_WORDS))
        return file.read().decode(errors="replace")
    return ""
