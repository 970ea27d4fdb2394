"""Time stamps and pacing that sources share."""

from __future__ import annotations

import time

import numpy as np

from edgeinfer.types import Capture, CaptureClock, Picture


def stamped(picture: Picture, clock: CaptureClock, t_media_ns: int | None = None, age_ns: int = 0) -> Capture:
    """A capture of `age_ns` ago, on both clocks. An image is made read-only."""
    if isinstance(picture, np.ndarray):
        picture.flags.writeable = False
    return Capture(picture, time.time_ns() - age_ns, time.monotonic_ns() - age_ns, clock, t_media_ns)


class Pacer:
    """Gives out pictures at a steady rate: `wait` sleeps until the next one is due. Late is not made up for."""

    def __init__(self, fps: float) -> None:
        self._period = 1.0 / fps
        self._due: float | None = None

    def wait(self) -> None:
        """Sleeps until the next picture is due."""
        now = time.monotonic()
        if self._due is None or now - self._due > 1.0:  # the first one, or far behind: start afresh
            self._due = now
        elif self._due > now:
            time.sleep(self._due - now)
        self._due += self._period
