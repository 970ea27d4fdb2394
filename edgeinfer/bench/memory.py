"""A source plugin for measuring: 720p frames that lie in memory before the clock starts, shown over and over."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct

from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from edgeinfer.types import Capture, Image

DISTINCT = 24
STEP = 13
"""Every 13th frame of the demo: 24 of them go through all its photographs."""


class Options(Struct, frozen=True, kw_only=True):
    """How many frames to give in all; with `fps` at that rate, like a camera, else as fast as they are taken."""

    frames: Annotated[int, Meta(ge=1)] = 300
    fps: Annotated[float, Meta(gt=0, le=1000)] | None = None


def open(uri: str, options: Options) -> MemorySource:  # noqa: A001 (the plugin interface)
    """The source."""
    return MemorySource(options)


class MemorySource:
    """See `Source`. Every capture shares its pixels with earlier ones, which no one may write to."""

    def __init__(self, options: Options) -> None:
        self._images = images()
        self._left = options.frames
        self._pacer = Pacer(options.fps) if options.fps else None
        self.live = options.fps is not None
        self.fps = options.fps or 0.0

    def read(self) -> Capture | None:
        """See `Source.read`."""
        if self._left == 0:
            return None
        self._left -= 1
        if self._pacer is not None:
            self._pacer.wait()
        return stamped(self._images[self._left % DISTINCT], "arrival")

    def close(self) -> None:
        """See `Source.close`."""


@lru_cache(maxsize=1)
def images() -> list[Image]:
    """The frames: (720, 1280, 3) uint8, different from each other."""
    camera = Demo(DemoOptions(realtime=False))
    return [camera.render(index * STEP) for index in range(DISTINCT)]
