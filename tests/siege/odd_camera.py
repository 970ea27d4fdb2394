"""Source plugins whose process dies, swells or hangs: `tests.siege.odd_camera://dies`, `://swells`, `://hangs`."""

from __future__ import annotations

import os
import time

import msgspec
import numpy as np

from edgeinfer.interfaces import Source
from edgeinfer.sources._clock import stamped
from edgeinfer.types import Capture

__all__ = ["RECONNECT", "Options", "open"]

RECONNECT = True
PICTURES = 10
PERIOD_S = 0.1
PART = 16 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """None of its own."""


class Odd:
    """Gives some pictures, and then does what it is called after."""

    live, fps = True, 1 / PERIOD_S

    def __init__(self, habit: str) -> None:
        self._habit, self._given = habit, 0
        self._hoard: list[bytearray] = []

    def read(self) -> Capture | None:
        time.sleep(PERIOD_S)
        self._given += 1
        if self._habit == "swells":
            self._hoard.append(bytearray(b"x") * PART)
        elif self._given > PICTURES and self._habit == "dies":
            os._exit(3)
        elif self._given > PICTURES:
            time.sleep(3600)
        return stamped(np.full((48, 64, 3), 128, np.uint8), "arrival")

    def close(self) -> None:
        self._hoard.clear()


def open(uri: str, options: Options) -> Source:  # noqa: A001 (the plugin interface)
    """The camera."""
    return Odd(uri.partition("://")[2])
