"""Latency percentiles of the last frames, stage by stage."""

from __future__ import annotations

import threading

import numpy as np

from edgeinfer.types import Timing

WINDOW = 10_000
STAGES = ("queue", "preprocess", "infer", "decode", "total")


class Statistics:
    """Keeps the last 10,000 frames' times, in milliseconds, in a ring. `total` is capture → publish. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring = np.zeros((WINDOW, len(STAGES)), np.float32)
        self._count = 0

    def add(self, timing: Timing, total_ms: float) -> None:
        """One published frame."""
        with self._lock:
            row = (timing.queue, timing.preprocess, timing.infer, timing.decode, total_ms)
            self._ring[self._count % WINDOW] = row
            self._count += 1

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Stage → p50, p95, p99 in ms; empty before the first frame."""
        with self._lock:
            rows = self._ring[: min(self._count, WINDOW)].copy()
        if not len(rows):
            return {}
        table = np.percentile(rows, (50, 95, 99), axis=0)
        return {
            stage: {f"p{q}": round(float(table[i, column]), 3) for i, q in enumerate((50, 95, 99))}
            for column, stage in enumerate(STAGES)
        }
