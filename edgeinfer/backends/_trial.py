"""Tries a network in a child with limits before the daemon loads it, and says in one line what is wrong with it."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeinfer.backends._session import VERSION, SessionSettings
from edgeinfer.backends._trial_child import FAILED, MEMORY, REFUSED, Feed, TrialReport, TrialRequest
from edgeinfer.errors import EdgeinferError, InputError, TemporaryError
from edgeinfer.guard.limits import TRIAL_MEMORY_BYTES, TRIAL_S, TRIAL_WEIGHTS
from edgeinfer.guard.memory import resident_bytes, total_bytes

log = logging.getLogger(__name__)

CHILD = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "  # systemd's comes to the whole service at once
    "from edgeinfer.backends._trial_child import main; main()"
)
POLL_S = 0.05
LEAVE_S = 5.0
REPORT_BYTES = 1 << 20
MOST_THREADS = 4
"""The trial leaves the other cores to what serves meanwhile."""
CPU_ONLY: list[tuple[str, dict[str, Any]]] = [("CPUExecutionProvider", {})]


class RefusedError(InputError):
    """ONNX Runtime on the CPU does not load or run the network, and needed no more than it may for saying so."""


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """What the network may take: bytes of memory beside the runtime's own, and seconds."""

    memory_bytes: int
    seconds: float


def usual_limits(files: Iterable[Path]) -> TrialLimits:
    """For a network of these files, on this machine."""
    weights = sum(file.stat().st_size for file in files)
    return TrialLimits(min(TRIAL_MEMORY_BYTES + TRIAL_WEIGHTS * weights, total_bytes() // 2), TRIAL_S)


def attempt(
    path: Path, session: SessionSettings, feed: Feed | None, limits: TrialLimits, cancel: threading.Event
) -> TrialReport:
    """Loads the network in a child and runs it once, with zeros, on the CPU: a device may be in use, or slow to begin.

    The child is gone when this returns or raises. Raises InputError where the network takes more than it may,
    RefusedError where it fails; TemporaryError soon after `cancel`.
    """
    threads = min(session.threads, MOST_THREADS)
    request = TrialRequest(
        path=str(path.absolute()),
        session=msgspec.structs.replace(session, threads=threads, spin=False, providers=CPU_ONLY),
        feed=feed,
        parent=os.getpid(),
        memory_bytes=limits.memory_bytes,
        cpu_s=int(limits.seconds * threads) + 10,
    )
    child = _start(request)
    try:
        answer = _follow(child, path, limits, cancel)
        with suppress(subprocess.TimeoutExpired):
            child.wait(LEAVE_S)  # its own end says more than ours for it
    finally:
        _end(child)
    return _judged(path, answer, child.returncode, limits)


def _start(request: TrialRequest) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches us alone, and all that it starts can be ended with it."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    try:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
    except OSError as error:
        raise TemporaryError(
            f"{request.path}: no process to try it in ({error.strerror})", "stop what else runs"
        ) from error
    assert child.stdin is not None  # noqa: S101 (asked for above)
    with suppress(BrokenPipeError):  # then it is dead, and `_judged` says so
        child.stdin.write(msgspec.json.encode(request) + b"\n")
        child.stdin.close()
    return child


def _follow(child: subprocess.Popen[bytes], path: Path, limits: TrialLimits, cancel: threading.Event) -> bytes:
    """What the child says until it closes its output. Raises where it must not go on."""
    assert child.stdout is not None  # noqa: S101 (asked for in `_start`)
    deadline, said = time.monotonic() + limits.seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while len(said) < REPORT_BYTES:
            if selector.select(POLL_S):
                chunk = os.read(child.stdout.fileno(), REPORT_BYTES)
                if not chunk:
                    break
                said += chunk
            if cancel.is_set():
                raise TemporaryError(f"{path}: given up while it was tried")
            if time.monotonic() > deadline:
                raise InputError(
                    f"{path}: the network gave no result within {limits.seconds:g} s when it was tried",
                    "use a smaller one; for a slow machine raise the backend's trial_s",
                )
            if resident_bytes(child.pid) > 2 * limits.memory_bytes:  # what RLIMIT_DATA does not see
                raise _too_much(path, limits)
    return said


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    try:
        child.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        log.warning("process %d, in which a network was tried, does not end: it hangs in the kernel", child.pid)


def _judged(path: Path, answer: bytes, code: int | None, limits: TrialLimits) -> TrialReport:
    try:
        report = msgspec.json.decode(answer, type=TrialReport)
    except msgspec.DecodeError:
        raise _died(path, code, limits) from None
    if report.failure == MEMORY:
        raise _too_much(path, limits)
    if report.failure == REFUSED:
        raise RefusedError(report.text)
    if report.failure == FAILED:
        raise RefusedError(f"{path}: ONNX Runtime {VERSION} can't run it: {report.text}", "export it again")
    return report


def _died(path: Path, code: int | None, limits: TrialLimits) -> EdgeinferError:
    number = -(code or 0)
    if number == signal.SIGKILL:
        return TemporaryError(
            f"{path}: the process in which it was tried was killed, most likely for lack of memory",
            "stop what else runs, or use a smaller network",
        )
    how = signal.Signals(number).name if number > 0 else f"exit code {code}"
    return InputError(
        f"{path}: ONNX Runtime {VERSION} ended with {how} when the network was tried, with "
        f"{_gib(limits.memory_bytes)} of memory and {limits.seconds:g} s",
        "use another network, or raise the backend's memory_mb",
    )


def _too_much(path: Path, limits: TrialLimits) -> InputError:
    return InputError(
        f"{path}: the network needs more than {_gib(limits.memory_bytes)} of memory",
        "use smaller batches (model.max_batch: 1) or a smaller network, or raise the backend's memory_mb",
    )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB"
