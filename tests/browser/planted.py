"""A camera with a square on a plain picture, at a place that the number of the frame says.

`tests.browser.planted:///FOLDER`: what it does is told by files in the folder, at any moment.

    frozen   it gives no pictures, and says nothing
    dead     it fails, and can't be opened
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from msgspec import Struct

from edgeinfer.errors import InputError, StalledError
from edgeinfer.frames import pool
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.types import Capture

RECONNECT = True
SIDE = 64
MARGIN = 32
"""Around the picture no square lies: there is room for what is written beside a box."""
GREY = 128
SQUARE = (255, 0, 255)
"""BGR. Nothing on the page has this colour."""
POLL_S = 0.05


class Options(Struct, frozen=True, kw_only=True):
    """`phase` tells cameras apart that would show the same at the same time."""

    width: int = 640
    height: int = 360
    fps: float = 10.0
    phase: int = 0


def open(uri: str, options: Options) -> Planted:  # noqa: A001 (the plugin interface)
    """The camera."""
    return Planted(Path(uri.partition("://")[2]), options)


class Planted:
    """See `Source`."""

    live = True

    def __init__(self, folder: Path, options: Options) -> None:
        self.fps = options.fps
        self._folder, self._options = folder, options
        self._number = 0
        self._pacer = Pacer(options.fps)
        self._fail_where_dead()

    def read(self) -> Capture:
        """See `Source.read`."""
        self._fail_where_dead()
        if (self._folder / "frozen").exists():
            time.sleep(POLL_S)
            raise StalledError("no picture comes")
        self._pacer.wait()
        options = self._options
        image = pool.empty(options.height, options.width)
        image[:] = GREY
        left, top = place(self._number, options)
        image[top : top + SIDE, left : left + SIDE] = SQUARE
        self._number += 1
        return stamped(image, "arrival")

    def close(self) -> None:
        """See `Source.close`."""

    def _fail_where_dead(self) -> None:
        if (self._folder / "dead").exists():
            raise InputError("the camera was unplugged")


def place(number: int, options: Options) -> tuple[int, int]:
    """Left and top of a frame's square, in pixels. It never lies where it lay in the frame before."""
    margin = max(MARGIN, options.height // 12)  # a page that shows a large picture small writes larger in it
    across, down = options.width - SIDE - 2 * margin, options.height - SIDE - 2 * margin
    return margin + (number * 137 + options.phase * 61) % across, margin + (number * 89 + options.phase * 31) % down


def truth(image: np.typing.NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """x1 y1 x2 y2 of the square in a picture, or None where there is none."""
    found = (image[:, :, 0] > 200) & (image[:, :, 1] < 60) & (image[:, :, 2] > 200)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
