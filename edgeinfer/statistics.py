"""Latency percentiles of the last frames, stage by stage."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from edgeinfer.types import Timing

WINDOW = 10_000
STAGES = ("queue", "preprocess", "infer", "decode", "total")


class Statistics:
    """Keeps the last 10,000 frames' times, in milliseconds. `total` is capture → publish. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: deque[tuple[float, float, float, float, float]] = deque(maxlen=WINDOW)

    def add(self, timing: Timing, total_ms: float) -> None:
        """One published frame."""
        with self._lock:
            self._rows.append((timing.queue, timing.preprocess, timing.infer, timing.decode, total_ms))

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Stage → p50, p95, p99 in ms; empty before the first frame."""
        with self._lock:
            rows = list(self._rows)
        if not rows:
            return {}
        table = np.percentile(np.array(rows), (50, 95, 99), axis=0)
        return {
            stage: {f"p{q}": round(float(table[i, column]), 3) for i, q in enumerate((50, 95, 99))}
            for column, stage in enumerate(STAGES)
        }
