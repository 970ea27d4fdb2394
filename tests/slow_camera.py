#!/usr/bin/python3 -I
"""A Python for sources through GStreamer that knows a camera which is slow to start and to stop, and tells a file.

GStreamer is the real one. The elements `nvarguscamerasrc` and `slowcamerasrc` are a live test picture; like a camera
behind nvargus-daemon, one that was not stopped in order is refused from then on, with an error. Their properties:
start-s and stop-s, in seconds, and log, the file: `open PID` and `closed PID`, a line each.
"""

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import gi  # type: ignore[import-not-found, unused-ignore]

gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst  # noqa: E402

Gst.init([])


class Camera(Gst.Bin):  # type: ignore[misc, unused-ignore]
    __gstmetadata__ = ("Camera", "Source/Video", "A camera for tests", "edgeinfer")
    __gsttemplates__ = Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, Gst.Caps.new_any())
    log = GObject.Property(type=str, default="")
    start_s = GObject.Property(type=float, default=0, minimum=0, maximum=1e9)
    stop_s = GObject.Property(type=float, default=0, minimum=0, maximum=1e9)

    def __init__(self) -> None:
        super().__init__()
        picture = Gst.parse_bin_from_description(
            "videotestsrc is-live=true ! capsfilter caps=video/x-raw,width=320,height=240", True
        )
        self.add(picture)
        self.add_pad(Gst.GhostPad.new("src", picture.get_static_pad("src")))

    def do_change_state(self, transition: Any) -> Any:
        if transition == Gst.StateChange.NULL_TO_READY:
            if taken(self.log):
                error = Gst.Error.new_literal(Gst.ResourceError.quark(), "refused", Gst.ResourceError.BUSY)
                self.post_message(Gst.Message.new_error(self, error, "not stopped in order"))
                return Gst.StateChangeReturn.FAILURE
            tell(self.log, "open")
            time.sleep(self.start_s)
        result = Gst.Bin.do_change_state(self, transition)
        if transition == Gst.StateChange.READY_TO_NULL:
            time.sleep(self.stop_s)
            tell(self.log, "closed")
        return result


def tell(log: str, word: str) -> None:
    with Path(log).open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


def taken(log: str) -> bool:
    lines = Path(log).read_text().splitlines() if Path(log).exists() else []
    return bool(lines) and lines[-1].startswith("open")


for name in ("nvarguscamerasrc", "slowcamerasrc"):
    Gst.Element.register(None, name, Gst.Rank.NONE, type(name, (Camera,), {"__gtype_name__": f"Test{name}"}))
if len(sys.argv) > 1:
    sys.argv = [word for word in sys.argv[1:] if word != "-I"]
    runpy.run_path(sys.argv[0], run_name="__main__")
