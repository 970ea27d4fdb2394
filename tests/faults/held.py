"""A camera with a process that takes its time to let go of it, as one behind nvargus-daemon does, without GStreamer."""

from __future__ import annotations

import os
import subprocess
import sys

from msgspec import Struct

from edgeinfer.sources import demo
from edgeinfer.types import Capture

RECONNECT = True
HOLD = """
import os, signal, sys, time
log, parent, stop_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def tell(word):
    with open(log, "a") as file:
        file.write(word + "\\n")
asked = []
for number in (signal.SIGTERM, signal.SIGABRT):
    signal.signal(number, lambda *_: asked.append(True))
tell("open")
while not asked and os.getppid() == parent:
    time.sleep(0.1)
until = time.monotonic() + stop_s
while time.monotonic() < until:
    time.sleep(0.1)
tell("closed")
"""
"""Until it is asked to leave by a signal, or whoever started it is gone."""


class Options(Struct, frozen=True, kw_only=True):
    """`log` is told what happens; `stop_s`: how long letting go takes."""

    log: str
    stop_s: float = 3.0


def open(uri: str, options: Options) -> Held:  # noqa: A001 (the plugin interface)
    return Held(options)


class Held:
    live = True

    def __init__(self, options: Options) -> None:
        self._pictures = demo.open("demo:", demo.Options())
        self.fps = self._pictures.fps
        words = [options.log, str(os.getpid()), f"{options.stop_s:g}"]
        self._child = subprocess.Popen([sys.executable, "-c", HOLD, *words], start_new_session=True)

    def read(self) -> Capture | None:
        return self._pictures.read()

    def close(self) -> None:
        self._child.terminate()
        self._child.wait()
        self._pictures.close()
