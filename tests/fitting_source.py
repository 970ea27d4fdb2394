"""A source plugin whose pictures can be made smaller on their way; it remembers what was asked for."""

from __future__ import annotations

import time

import numpy as np
from msgspec import Struct

from edgeinfer.sources._clock import stamped
from edgeinfer.types import Capture

fits: list[tuple[int, int] | None] = []


class Options(Struct, frozen=True, kw_only=True):
    """`scaler`: whether it has something that makes pictures smaller."""

    scaler: bool = True


def open(uri: str, options: Options) -> Camera:  # noqa: A001 (the plugin interface)
    fits.append(None)
    return Camera()


def scales(uri: str, options: Options) -> bool:
    return options.scaler


def open_fitted(uri: str, options: Options, fit: tuple[int, int]) -> Camera:
    fits.append(fit)
    return Camera()


class Camera:
    live, fps = True, 100.0

    def read(self) -> Capture:
        time.sleep(0.01)
        return stamped(np.zeros((8, 8, 3), np.uint8), "arrival")

    def close(self) -> None:
        pass
