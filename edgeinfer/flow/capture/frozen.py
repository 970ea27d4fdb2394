"""A camera that repeats one picture, successfully."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeinfer.types import Picture

GRID = 64
"""Of a picture, so many rows and columns are compared. The noise of a sensor alone changes some of them."""


@dataclass
class FrozenDetector:
    """Tells how long a source's pictures have been the same, pixel for pixel."""

    _before: bytes = b""
    _since_ns: int = 0

    def same_for_ns(self, picture: Picture, now_ns: int) -> int:
        """Since when `picture` and those before it have been alike, as nanoseconds before `now_ns`; 0 for a new one."""
        sample = _sample(picture)
        if sample != self._before:
            self._before, self._since_ns = sample, now_ns
        return now_ns - self._since_ns


def _sample(picture: Picture) -> bytes:
    if not isinstance(picture, np.ndarray):
        return picture.sample(GRID)
    height, width = picture.shape[:2]
    return picture[:: max(1, height // GRID), :: max(1, width // GRID)].tobytes()
