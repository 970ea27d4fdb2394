"""A child process that tells of the machine what no file says, a line of JSON at a time. Nobody ever waits for it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

log = logging.getLogger(__name__)

STALE_S = 10.0
"""An answer that is older is none."""
SILENT_S = 30.0
"""A child that says nothing for so long is ended."""
RETRY_S = 300.0
"""So long after an end comes the next attempt."""
MAX_BYTES = 1 << 16
"""Of one line, and of what is read at a time."""

_Name = Annotated[str, Meta(max_length=40, pattern=r"^[\w.@ -]+$")]


class Answer(Struct, frozen=True):
    """What a child says; fields as in `MachineVitals`. version: of what it asked. fault: why there is nothing."""

    version: Annotated[str, Meta(max_length=40, pattern=r"^[\w.+-]*$")] = ""
    power_mode: _Name | None = None
    gpu_load: Annotated[float, Meta(ge=0, le=1)] | None = None
    gpu_hz: Annotated[int, Meta(ge=0)] | None = None
    temperatures_c: Annotated[dict[_Name, Annotated[float, Meta(ge=-60, le=200)]], Meta(max_length=64)] = {}
    power_mw: Annotated[dict[_Name, Annotated[int, Meta(ge=0)]], Meta(max_length=64)] = {}
    fault: str = ""


class Feed:
    """One such child, started when it can be and kept. Used by one thread, which closes it."""

    def __init__(self, name: str, command: list[str], obstacle: Callable[[], str]) -> None:
        """obstacle: why it is not to be started now, in words; empty where it is."""
        self.name = name
        self._command = command
        self._obstacle = obstacle
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._answer: Answer | None = None
        self._heard_s = self._ended_s = float("-inf")
        self._told = ""

    @property
    def running(self) -> bool:
        """Whether there is a child."""
        return self._process is not None

    def read(self, now_s: float) -> Answer | None:
        """The newest answer, None where there is none that is fresh. Starts the child, or ends it, as is due."""
        if self._process is None:
            if now_s - self._ended_s >= RETRY_S:
                self._start(now_s)
        else:
            self._take(self._process, now_s)
        return self._answer if now_s - self._heard_s < STALE_S else None

    def close(self) -> None:
        """Ends the child."""
        process, self._process = self._process, None
        self._answer = None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)

    def _start(self, now_s: float) -> None:
        self._ended_s = now_s
        if why := self._obstacle():
            self._tell(why)
            return
        try:
            process = subprocess.Popen(  # noqa: S603 (our own script, no shell)
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._tell(f"it can't be started: {error.strerror}")
            return
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 (both are pipes)
        self._process, self._rest, self._heard_s, self._answer = process, b"", now_s, None
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(OSError):  # it is dead already, which the next reading sees
            process.stdin.write(json.dumps(sys.path).encode() + b"\n")
            process.stdin.flush()

    def _take(self, process: subprocess.Popen[bytes], now_s: float) -> None:
        assert process.stdout is not None  # noqa: S101 (a pipe)
        try:
            data = os.read(process.stdout.fileno(), MAX_BYTES)
        except BlockingIOError:
            if now_s - self._heard_s >= SILENT_S:
                self._end("it gave no answer", now_s)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data:
            self._end("it has ended", now_s)
        elif len(self._rest) > MAX_BYTES:
            self._end("it says what makes no sense", now_s)
        elif lines:
            self._hear(lines[-1], now_s)

    def _hear(self, line: bytes, now_s: float) -> None:
        try:
            answer = msgspec.json.decode(line, type=Answer)
        except (msgspec.DecodeError, RecursionError):
            self._end("it says what makes no sense", now_s)
            return
        if answer.fault:
            self._end(answer.fault, now_s)
        else:
            self._answer, self._heard_s, self._told = answer, now_s, ""

    def _end(self, why: str, now_s: float) -> None:
        self._tell(why)
        self.close()
        self._ended_s = now_s

    def _tell(self, why: str) -> None:
        if why and why != self._told:
            log.debug("telemetry: %s is not used: %s", self.name, why[:200])
            self._told = why
