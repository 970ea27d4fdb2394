"""Watches over a running daemon, on a thread of its own: pets systemd while all stages are alive, ends the process
where one is not, remembers how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from typing import Protocol

from edgeinfer.errors import EdgeinferError, FatalError, StickyError
from edgeinfer.gpu.patience import PATIENCE
from edgeinfer.guard.redaction import redact
from edgeinfer.messages import LastCrash, Reason
from edgeinfer.systemd import notify
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.watchdog.crash import Crash, CrashLog, Run, boot_id, now_ns, stacks, state_root
from edgeinfer.watchdog.hearts import Heart, Stall, deadline_s, find_stall
from edgeinfer.watchdog.last_words import LastWords
from edgeinfer.watchdog.service_manager import ServiceManager

log = logging.getLogger(__name__)

TICK_S = 0.2
STANDSTILL_S = 1.0
"""A tick that comes so late was not kept by a stage: the process was stopped, or the machine slept."""
STALLED, STICKY, FATAL = "stalled", "sticky-cuda-error", "fatal"


class Watched(Protocol):
    """What the judge needs of a daemon. `heart` is the main thread's; the methods may be called from any thread."""

    @property
    def heart(self) -> Heart: ...

    @property
    def bulletin(self) -> Bulletin: ...

    def hearts(self) -> list[Heart]: ...

    def snapshot(self) -> DaemonSnapshot: ...

    def blame_engine(self) -> None: ...


class Judge(threading.Thread):
    """Looks at every stage's heart five times a second.

    `start` after the daemon's start, `ending` before its `stop`, `close` after that.
    """

    def __init__(self, daemon: Watched, least_s: float, crashes: CrashLog | None = None) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._daemon, self._least_s = daemon, least_s
        self._crashes = crashes or CrashLog(state_root())
        self._started_s = self._looked_s = time.monotonic()
        self._words = LastWords(self._keep, self._tell_fatal)
        self._service_manager = ServiceManager()
        self._seen = daemon.snapshot()
        self._closing, self._ending = threading.Event(), threading.Event()
        self._marker = self._crashes.begin(Run(pid=os.getpid(), boot_id=boot_id(), model=self._seen.model))
        self._tell_last_crash()

    def run(self) -> None:
        """The thread's life. Where it dies, systemd misses its heartbeat."""
        while not self._closing.wait(TICK_S):
            self.tick()

    def tick(self) -> None:
        """One look: judges, then pets, then the smaller things."""
        self._forgive_standstill()
        daemon = self._daemon
        stall = find_stall(daemon.hearts(), self._deadline_s())
        if stall is not None and not self._closing.is_set():
            self._end_stalled(stall)
        self._seen = daemon.snapshot()
        self._marker.note(self._seen.backend, self._seen.engine_key)
        if self._ending.is_set():
            notify.watchdog()
        else:
            self._service_manager.announce(self._seen)

    def ending(self, error: EdgeinferError | None = None) -> None:
        """The run is over: for `error`, or as it should be; what is in flight may still be passed on, under watch.

        A sticky CUDA error ends the process here and now.
        """
        self._ending.set()
        self._daemon.heart.rest()  # from here on the main thread waits for the others
        with contextlib.suppress(Exception):  # nothing hangs: what serves may be another than at the last look
            self._seen = self._daemon.snapshot()
        if isinstance(error, StickyError):
            self._daemon.blame_engine()
            self._words.speak(self._crash(STICKY, str(error), "inference", _trace(error)))
        if isinstance(error, FatalError):
            self._crashes.write(self._crash(FATAL, str(error), "", _trace(error)))
        notify.stopping()

    def close(self) -> None:
        """All stages have ended, or have been waited for long enough."""
        self._closing.set()
        self._marker.close()

    def _end_stalled(self, stall: Stall) -> None:
        if stall.stage == "inference":
            self._daemon.blame_engine()
        self._words.speak(self._crash(STALLED, str(stall), stall.stage, stacks()))

    def _keep(self, crash: Crash) -> None:
        self._crashes.write(crash)
        self._marker.close()  # what is told is no riddle for the next run

    def _tell_fatal(self, reason: Reason) -> None:
        self._daemon.bulletin.fatal = reason

    def _crash(self, code: str, text: str, stage: str, traces: str) -> Crash:
        seen = self._seen  # not a new one: whoever hangs may hold a lock that it needs
        return Crash(
            code=code,
            text=text,
            stage=stage,
            stacks=traces,
            model=seen.model,
            backend=seen.backend,
            engine_key=seen.engine_key,
            pid=os.getpid(),
            boot_id=boot_id(),
            t_ns=now_ns(),
            uptime_s=round(time.monotonic() - self._started_s, 3),
        )

    def _tell_last_crash(self) -> None:
        crash = self._crashes.read()
        if crash is None:
            return
        told = LastCrash(code=crash.code, text=crash.text, stage=crash.stage, version=crash.version, t_ns=crash.t_ns)
        self._daemon.bulletin.note("last_crash", told)

    def _deadline_s(self) -> float:
        """Longer beside a build: who waits for the GPU then is no stuck stage."""
        usual_s = deadline_s(self._least_s, self._seen.latency_ms.get("infer", {}).get("p99", 0.0))
        return usual_s + PATIENCE.long_s if PATIENCE.long else usual_s

    def _forgive_standstill(self) -> None:
        before, self._looked_s = self._looked_s, time.monotonic()
        gap_s = self._looked_s - before - TICK_S
        if gap_s > STANDSTILL_S:
            log.warning("the process stood still for %.1f s", gap_s)
            for heart in self._daemon.hearts():
                heart.forgive(gap_s)


def _trace(error: BaseException) -> str:
    return redact("".join(traceback.format_exception(error)))
