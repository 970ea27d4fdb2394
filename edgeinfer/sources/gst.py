"""Any GStreamer pipeline as a source: `gst:v4l2src device=/dev/video0 ! image/jpeg ! jpegdec`.

The text is that of `gst-launch-1.0` without a sink; it ends in video in normal memory (after NVIDIA's elements: with
`nvvidconv`). It runs in a process of its own, which is ended and replaced where it hangs.
"""

from __future__ import annotations

from msgspec import Struct

from edgeinfer.errors import ConfigError
from edgeinfer.sources._gst_process import TO_SINK, GstSource, Recipe, start
from edgeinfer.types import Start

RECONNECT = True


class Options(Struct, frozen=True, kw_only=True):
    """`python` is an interpreter that can use GStreamer (python3-gi, gir1.2-gstreamer-1.0); by default this one, else
    the system's.
    """

    python: str | None = None


def open(uri: str, options: Options) -> GstSource:  # noqa: A001 (the plugin interface)
    """Starts the pipeline. Raises CameraError, ConfigError and UnavailableError."""
    text = uri.partition(":")[2].strip()
    if not text:
        raise ConfigError("gst: there is no pipeline", "for instance gst:videotestsrc is-live=true")
    return GstSource(Recipe("gst", [([], f"{text} ! {TO_SINK}")]), options.python)


def isolate(uri: str, options: Options) -> None:
    """See `Isolating`. It makes a process of its own."""


def starting(uri: str, options: Options) -> Start:
    """See `SlowStarting`."""
    return start()
