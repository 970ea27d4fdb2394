"""A camera that repeats one picture, successfully."""

from __future__ import annotations

from dataclasses import dataclass

from edgeinfer.types import Image

GRID = 64
"""Of a picture, so many rows and columns are compared. The noise of a sensor alone changes some of them."""


@dataclass
class FrozenDetector:
    """Tells how long a source's pictures have been the same, pixel for pixel."""

    _before: bytes = b""
    _since_ns: int = 0

    def same_for_ns(self, image: Image, now_ns: int) -> int:
        """Since when `image` and those before it have been alike, as nanoseconds before `now_ns`; 0 for a new one."""
        height, width = image.shape[:2]
        sample = image[:: max(1, height // GRID), :: max(1, width // GRID)].tobytes()
        if sample != self._before:
            self._before, self._since_ns = sample, now_ns
        return now_ns - self._since_ns
