"""Time stamps and pacing that sources share."""

from __future__ import annotations

import time

from edgeinfer.types import Capture, CaptureClock, Image


def stamped(image: Image, clock: CaptureClock, t_media_ns: int | None = None, age_ns: int = 0) -> Capture:
    """A capture of `age_ns` ago, on both clocks. The image is made read-only."""
    image.flags.writeable = False
    return Capture(image, time.time_ns() - age_ns, time.monotonic_ns() - age_ns, clock, t_media_ns)


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
