"""Latencies stage by stage: percentiles of the last frames, and histograms of all."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeinfer.types import Timing

WINDOW = 10_000
FOLD = 1_000
"""So many frames are entered into the histograms at once: a fraction of a microsecond for each."""
STAGES = ("receive", "queue", "preprocess", "wait", "infer", "decode", "publish", "total")
"""In the order in which a frame passes them. `receive` is a part of `queue`; the others but `total` make up `total`."""
BUCKETS_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many frames took at most each of BUCKETS_MS, then all of them (cumulative), and their sum in ms."""

    counts: tuple[int, ...]
    sum_ms: float


class _Bins:
    """A histogram that grows."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(BUCKETS_MS) + 1, np.int64)
        self._sum_ms = 0.0

    def add(self, times_ms: npt.NDArray[np.float32]) -> None:
        places = np.searchsorted(BUCKETS_MS, times_ms, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum_ms += float(times_ms.sum(dtype=np.float64))

    def histogram(self) -> Histogram:
        return Histogram(tuple(np.cumsum(self._counts).tolist()), self._sum_ms)


class Statistics:
    """Keeps the last 10,000 frames' times, in milliseconds, in a ring. `total` is capture → publish. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring = np.zeros((WINDOW, len(STAGES)), np.float32)
        self._origin = np.zeros(WINDOW, np.int32)
        self._count = self._folded = 0
        self._sources: dict[str, int] = {}
        self._stage_bins = [_Bins() for _ in STAGES]
        self._source_bins: list[_Bins] = []

    def add(self, timing: Timing, total_ms: float, source: str = "", publish_ms: float = 0.0) -> None:
        """One published frame."""
        made = (timing.receive, timing.queue, timing.preprocess, timing.wait, timing.infer, timing.decode)
        row = (*made, publish_ms, total_ms)
        with self._lock:
            place = self._count % WINDOW
            self._ring[place] = row
            self._origin[place] = self._number(source)
            self._count += 1
            if self._count - self._folded >= FOLD:
                self._fold()

    def percentiles(self, last: int = WINDOW) -> dict[str, dict[str, float]]:
        """Stage → p50, p95, p99 in ms, of at most the `last` frames; empty before the first frame."""
        with self._lock:
            first = max(0, self._count - min(last, WINDOW))
            rows = self._ring[np.arange(first, self._count) % WINDOW]
        if not len(rows):
            return {}
        table = np.percentile(rows, (50, 95, 99), axis=0)
        return {
            stage: {f"p{q}": round(float(table[i, column]), 3) for i, q in enumerate((50, 95, 99))}
            for column, stage in enumerate(STAGES)
        }

    def stages(self) -> dict[str, Histogram]:
        """Stage → all its times since the start."""
        with self._lock:
            self._fold()
            return {stage: bins.histogram() for stage, bins in zip(STAGES, self._stage_bins, strict=True)}

    def sources(self) -> dict[str, Histogram]:
        """Source → all its frames' times from capture to publish since the start."""
        with self._lock:
            self._fold()
            return {name: self._source_bins[number].histogram() for name, number in self._sources.items()}

    def _number(self, source: str) -> int:
        number = self._sources.get(source)
        if number is None:
            number = self._sources[source] = len(self._source_bins)
            self._source_bins.append(_Bins())
        return number

    def _fold(self) -> None:
        places = np.arange(self._folded, self._count) % WINDOW
        rows, origins = self._ring[places], self._origin[places]
        self._folded = self._count
        for column, bins in enumerate(self._stage_bins):
            bins.add(rows[:, column])
        for number, bins in enumerate(self._source_bins):
            bins.add(rows[origins == number, -1])
