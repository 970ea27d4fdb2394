"""Watches over a running daemon, on a thread of its own: pets systemd while all stages are alive, ends the process
where one is not, remembers how it ended."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback

from edgeinfer.daemon.daemon import Daemon
from edgeinfer.errors import EdgeinferError, FatalError, StickyError
from edgeinfer.guard.redaction import redact
from edgeinfer.messages import LastCrash
from edgeinfer.systemd import notify
from edgeinfer.watchdog.crash import Crash, CrashLog, Run, boot_id, now_ns, stacks, state_root
from edgeinfer.watchdog.hearts import Stall, deadline_s, find_stall
from edgeinfer.watchdog.last_words import LastWords
from edgeinfer.watchdog.service_manager import ServiceManager, View

log = logging.getLogger(__name__)

TICK_S = 0.2
STANDSTILL_S = 1.0
"""A tick that comes so late was not kept by a stage: the process was stopped, or the machine slept."""
P99_PERIOD_S = 2.0
STALLED, STICKY, FATAL = "stalled", "sticky-cuda-error", "fatal"


class Judge(threading.Thread):
    """Looks at every stage's heart five times a second.

    `start` after the daemon's start, `ending` before its `stop`, `close` after that.
    """

    def __init__(self, daemon: Daemon, least_s: float, crashes: CrashLog | None = None) -> None:
        super().__init__(name="judge", daemon=True)
        self._daemon, self._least_s = daemon, least_s
        self._crashes = crashes or CrashLog(state_root())
        self._started_s = self._looked_s = time.monotonic()
        self._words = LastWords(self._keep, daemon.publisher.fail)
        self._service_manager = ServiceManager()
        self._next_p99_s = self._p99_ms = 0.0
        self._closing, self._ending = threading.Event(), threading.Event()
        self._marker = self._crashes.begin(Run(pid=os.getpid(), boot_id=boot_id(), model=daemon.model.id))
        self._tell_last_crash()
        daemon.reloader.on_started.append(notify.reloading)
        daemon.reloader.on_finished.append(lambda report: notify.ready(report.text))

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
        self._marker.note(daemon.backend_name, daemon.engine_key)
        if self._ending.is_set():
            notify.watchdog()
            return
        self._service_manager.announce(View(daemon.serving_s, daemon.backend_name, daemon.books(), daemon.news))

    def ending(self, error: EdgeinferError | None = None) -> None:
        """The run is over: for `error`, or as it should be; what is in flight may still be passed on, under watch.

        A sticky CUDA error ends the process here and now.
        """
        self._ending.set()
        self._daemon.heart.rest()  # from here on the main thread waits for the others
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

    def _crash(self, code: str, text: str, stage: str, traces: str) -> Crash:
        return Crash(
            code=code,
            text=text,
            stage=stage,
            stacks=traces,
            model=self._daemon.model.id,
            backend=self._daemon.backend_name,
            engine_key=self._daemon.engine_key,
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
        self._daemon.publisher.set_fact("last_crash", told)

    def _deadline_s(self) -> float:
        """The rule of `health.deadline_s`; percentiles cost something, so they are looked at now and then."""
        now = time.monotonic()
        if now >= self._next_p99_s:
            self._next_p99_s, self._p99_ms = now + P99_PERIOD_S, self._daemon.infer_p99_ms
        return deadline_s(self._least_s, self._p99_ms)

    def _forgive_standstill(self) -> None:
        before, self._looked_s = self._looked_s, time.monotonic()
        gap_s = self._looked_s - before - TICK_S
        if gap_s > STANDSTILL_S:
            log.warning("the process stood still for %.1f s", gap_s)
            for heart in self._daemon.hearts():
                heart.forgive(gap_s)


def _trace(error: BaseException) -> str:
    return redact("".join(traceback.format_exception(error)))
