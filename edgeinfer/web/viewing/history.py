"""The last ten minutes, a sample a second: what the plots show."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import UNSET, Struct, structs

from edgeinfer.guard.limits import WEB_SAMPLES
from edgeinfer.messages import DAEMON, MachineVitals, Message, StatusMessage
from edgeinfer.types import Result

STEP_NS = 500_000_000
"""The wall clock was set where it has gone on by so much more or less than the one that no sleep stops."""
MIN_PERIOD_S = 0.9
"""A status comes once a second, and at every change besides."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def asleep_ns() -> int:
    """How long the machine has slept since it was started, more or less: CLOCK_MONOTONIC stands still then."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


class Sample(Struct, frozen=True, kw_only=True):
    """A second. What was not measured is None, or not there."""

    t_ns: int
    fps: float
    latency_ms: Mapping[str, float]
    dropped: Mapping[str, float]
    cpu: float | None
    rss_bytes: int | None
    temperature_c: Mapping[str, float]
    gpu_load: float | None


class Columns(Struct, frozen=True, kw_only=True):
    """The same, as the page draws it: a list for each line, all of the same length."""

    t_ns: list[int]
    fps: list[float]
    latency_ms: dict[str, list[float | None]]
    dropped: dict[str, list[float | None]]
    cpu: list[float | None]
    rss_bytes: list[int | None]
    temperature_c: dict[str, list[float | None]]
    gpu_load: list[float | None]


class History:
    """A sink that keeps WEB_SAMPLES samples, made of the daemon's own status. Read by any thread."""

    blocks = False
    pictures = False

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        asleep: Callable[[], int] = asleep_ns,
    ) -> None:
        self._clock, self._cpu_clock, self._asleep_ns = clock, cpu_clock, asleep
        self._samples: deque[Sample] = deque(maxlen=WEB_SAMPLES)
        self._lock = threading.Lock()
        self._boot_ns = 0
        self._before: tuple[float, float, Mapping[str, int]] | None = None

    def columns(self, since_ns: int = 0) -> Columns:
        """What was measured after that time of day; everything, where that is still to come: the clock was set."""
        with self._lock:
            if self._samples and since_ns > self._samples[-1].t_ns + STEP_NS:
                since_ns = 0
            samples = [sample for sample in self._samples if sample.t_ns > since_ns]
        return Columns(
            t_ns=[sample.t_ns for sample in samples],
            fps=[sample.fps for sample in samples],
            latency_ms=_by_name([sample.latency_ms for sample in samples]),
            dropped=_by_name([sample.dropped for sample in samples]),
            cpu=[sample.cpu for sample in samples],
            rss_bytes=[sample.rss_bytes for sample in samples],
            temperature_c=_by_name([sample.temperature_c for sample in samples]),
            gpu_load=[sample.gpu_load for sample in samples],
        )

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if isinstance(message, StatusMessage) and message.source == DAEMON:
            self._measure(message)

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    def _measure(self, status: StatusMessage) -> None:
        now_s, cpu_s = self._clock(), self._cpu_clock()
        before = self._before
        if before is not None and now_s - before[0] < MIN_PERIOD_S:
            return
        self._before = now_s, cpu_s, dict(status.dropped_by_reason)
        sample = _sample(status, before, now_s, cpu_s)
        with self._lock:
            self._follow_the_clock(sample, status.t_publish_mono_ns + self._asleep_ns())
            self._samples.append(sample)

    def _follow_the_clock(self, newest: Sample, boot_ns: int) -> None:
        """Keeps the distances between samples what they were, where the wall clock was set."""
        before_ns, self._boot_ns = self._boot_ns, boot_ns
        if self._samples:
            step_ns = (newest.t_ns - self._samples[-1].t_ns) - (boot_ns - before_ns)
            if abs(step_ns) > STEP_NS:
                moved = [structs.replace(sample, t_ns=sample.t_ns + step_ns) for sample in self._samples]
                self._samples = deque(moved, maxlen=WEB_SAMPLES)


def _sample(
    status: StatusMessage, before: tuple[float, float, Mapping[str, int]] | None, now_s: float, cpu_s: float
) -> Sample:
    vitals = status.vitals
    machine = MachineVitals() if vitals is UNSET or vitals.machine is UNSET else vitals.machine
    seconds = None if before is None else now_s - before[0]
    return Sample(
        t_ns=status.t_publish_ns,
        fps=status.fps,
        latency_ms={} if vitals is UNSET else {stage: values["p50"] for stage, values in vitals.latency_ms.items()},
        dropped={}
        if before is None or seconds is None
        else {
            reason: round((count - before[2].get(reason, 0)) / seconds, 2)
            for reason, count in status.dropped_by_reason.items()
        },
        cpu=None if before is None or seconds is None else round((cpu_s - before[1]) / seconds, 4),
        rss_bytes=_rss_bytes(),
        temperature_c={} if machine.temperatures_c is UNSET else machine.temperatures_c,
        gpu_load=None if machine.gpu_load is UNSET else machine.gpu_load,
    )


def _rss_bytes() -> int | None:
    """What of this process is in memory, as the kernel counts it (proc_pid_statm(5))."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _by_name(rows: list[Mapping[str, float]]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
