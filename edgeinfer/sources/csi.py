"""CSI cameras of a Jetson, through `nvarguscamerasrc`: `csi://0` is the first one.

The driver's user space is known to hang after an error until its process ends; therefore it lives in one of its own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Annotated

from msgspec import Meta, Struct

from edgeinfer.errors import ConfigError
from edgeinfer.recipe import BINDINGS
from edgeinfer.sources._gst_process import FROM_NVMM_TO_SINK, GstSource, Recipe, start
from edgeinfer.types import Start

RECONNECT = True
NEEDS = ("nvarguscamerasrc", "nvvidconv")
ON_ITS_SIDE = (1, 3, 5, 7)
"""The flip-methods that exchange width and height."""

Pixels = Annotated[int, Meta(ge=16, le=8192)]


class Options(Struct, frozen=True, kw_only=True):
    """The sensor mode that fits these best is used. `flip` is nvvidconv's flip-method, 2 turns upside down.

    `python` is an interpreter that can use GStreamer (python3-gi, gir1.2-gstreamer-1.0); by default this one, else the
    system's.
    """

    width: Pixels = 1280
    height: Pixels = 720
    fps: Annotated[float, Meta(ge=1, le=240)] = 30.0
    flip: Annotated[int, Meta(ge=0, le=7)] = 0
    python: str | None = None


def open(uri: str, options: Options) -> GstSource:  # noqa: A001 (the plugin interface)
    """Starts the camera. Raises CameraError, and UnavailableError on a machine without NVIDIA's camera elements."""
    return GstSource(recipe(uri, options), options.python)


def scales(uri: str, options: Options) -> bool:
    """See `Scaling`."""
    return True


def open_fitted(uri: str, options: Options, fit: tuple[int, int]) -> GstSource:
    """See `Scaling`."""
    return GstSource(replace(recipe(uri, options), fit=fit), options.python)


def isolate(uri: str, options: Options) -> None:
    """See `Isolating`. It makes a process of its own."""


def starting(uri: str, options: Options) -> Start:
    """See `SlowStarting`."""
    return start()


def recipe(uri: str, options: Options) -> Recipe:
    """The pipeline for `csi://N`. Raises ConfigError where N is no number."""
    match = re.fullmatch(r"csi:(?://)?(\d{1,2})", uri, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{uri}: expected csi://N, the number of the sensor", "csi://0 is the first one")
    rate = Fraction(options.fps).limit_denominator(1001)
    text = (
        f"nvarguscamerasrc sensor-id={int(match[1])} ! video/x-raw(memory:NVMM),width={options.width},"
        f"height={options.height},framerate={rate.numerator}/{rate.denominator} ! "
        + FROM_NVMM_TO_SINK.replace("nvvidconv", f"nvvidconv flip-method={options.flip}", 1)
    )
    remedy = f"on a Jetson: apt install nvidia-l4t-gstreamer {BINDINGS}"
    return Recipe(uri, [(NEEDS, text)], remedy=remedy, memory_bytes=None, turned=options.flip in ON_ITS_SIDE)
