"""A camera that costs next to nothing: `scripts.still_camera:///bgr?640x360` shows pictures of the demo, made before.

With `yuv` they are as decoders give them.
"""

from __future__ import annotations

import cv2
import numpy as np
from msgspec import Struct

from edgeinfer.frames import pool
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from edgeinfer.types import AnyArray, Capture, Colour, Picture

PICTURES, STEP = 8, 5


class Options(Struct, frozen=True, kw_only=True):
    """The rate."""

    fps: float = 10.0


def open(uri: str, options: Options) -> StillCamera:  # noqa: A001 (the plugin interface)
    """The camera."""
    form, _, size = uri.rpartition("/")[2].partition("?")
    width, _, height = size.partition("x")
    return StillCamera(form == "yuv", int(width), int(height), options.fps)


class StillCamera:
    """See `Source`."""

    live = True

    def __init__(self, yuv: bool, width: int, height: int, fps: float) -> None:
        self.fps = fps
        self._shape = Shape("i420", width, height) if yuv else None
        demo = Demo(DemoOptions(width=width, height=height, realtime=False))
        self._pictures: list[AnyArray] = [demo.render(n * STEP) for n in range(PICTURES)]
        if yuv:
            self._pictures = [cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).reshape(-1) for image in self._pictures]
        self._number = 0
        self._pacer = Pacer(fps)

    def read(self) -> Capture:
        """See `Source.read`."""
        self._pacer.wait()
        self._number += 1
        return stamped(self._copied(self._pictures[self._number % PICTURES]), "arrival")

    def close(self) -> None:
        """See `Source.close`."""

    def _copied(self, picture: AnyArray) -> Picture:
        if self._shape is None:
            return pool.copy(picture)
        memory = pool.bytes(self._shape.size)
        np.copyto(memory, picture)
        return HostSurface(memory, self._shape, Colour("bt601"))
