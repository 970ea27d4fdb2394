"""The parent's side of a GStreamer process: starts it, takes its pictures, ends it whatever it does."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeinfer.errors import CameraError, ConfigError, EdgeinferError, StalledError, UnavailableError
from edgeinfer.frames import pool
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.sources._clock import stamped
from edgeinfer.types import Capture, CaptureClock, Image

log = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("_gst_child.py")
SYSTEM_PYTHON = "/usr/bin/python3"
READ_DEADLINE_S = 2.0
ANSWER_S = 3.0
"""The child answers every 0.3 s, with or without a picture; one that does not hangs."""
START_S = 15.0
LEAVE_S, TERM_S = 1.0, 2.0
MAX_AGE_NS = 1_000_000_000
REMEDY = "apt install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"

TO_SINK = (
    "videoconvert ! video/x-raw,format=(string){BGR,BGRx} ! "
    "appsink name=edgeinfer_sink sync=false drop=true max-buffers=1"
)
FROM_NVMM_TO_SINK = (
    "nvvidconv ! video/x-raw,format=(string)BGRx ! appsink name=edgeinfer_sink sync=false drop=true max-buffers=1"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Pipelines to try, the first whose elements are all there is taken; and properties that no process list shows.

    `what` is the source as errors call it. `clock` is who stamps its buffers, `remedy` what brings missing elements.
    """

    what: str
    pipelines: Sequence[tuple[Sequence[str], str]]
    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    clock: CaptureClock = "driver"
    remedy: str = REMEDY

    def to_json(self) -> bytes:
        """As the child reads it."""
        pipelines = [{"needs": list(needs), "text": text} for needs, text in self.pipelines]
        return json.dumps({"pipelines": pipelines, "properties": self.properties}).encode()


class GstSource:
    """See `Source`. A pipeline in a child process; one that is not live is never made to drop a picture."""

    fps = 0.0

    def __init__(self, recipe: Recipe, python: str | None = None) -> None:
        """Raises CameraError, ConfigError for a pipeline that is none, UnavailableError where GStreamer is missing."""
        self._recipe = recipe
        self._memory: mmap.mmap | None = None
        self._last_pts: int | None = None
        interpreter = python or find_python()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [interpreter, "-I", str(CHILD), str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(  # noqa: S603 (our own file, by the interpreter that was chosen)
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for us; we end it
                )
            except OSError as error:
                self._socket.close()
                raise UnavailableError(f"{command[0]}: {error.strerror}", "python names a Python 3 with gi") from None
        try:
            self._socket.send(recipe.to_json())
            self.live = bool(self._answer(START_S)["live"])
        except OSError:
            self.close()
            raise self._ended() from None
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def read(self) -> Capture | None:
        """See `Source.read`. A buffer with the time stamp of the one before is no new picture."""
        deadline = time.monotonic() + READ_DEADLINE_S
        while True:
            answer = self._ask()
            if "end" in answer:
                if self.live:
                    raise CameraError("closed", f"{self._recipe.what}: the stream ended")
                return None
            if "none" not in answer and answer["pts"] != self._last_pts:
                self._last_pts = answer["pts"]
                return self._capture(answer)
            if self.live and time.monotonic() > deadline:
                raise StalledError(f"{self._recipe.what}: no new picture within {READ_DEADLINE_S:g} s")

    def close(self) -> None:
        """Lets the child go, then asks it with SIGTERM, then ends it with SIGKILL. No child outlives this."""
        self._socket.close()
        if not self._waited(LEAVE_S):
            self._kill()
        if self._memory is not None:
            self._memory.close()

    def _kill(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            if self._waited(TERM_S):
                return
        log.warning("%s: process %d does not end, it hangs in the kernel", self._recipe.what, self._process.pid)

    def _waited(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _ask(self) -> dict[str, Any]:
        try:
            self._socket.send(b"next")
            return self._answer(ANSWER_S)
        except TimeoutError:
            self._kill()
            raise CameraError("hung", f"{self._recipe.what}: GStreamer hung and was ended") from None
        except OSError:
            raise self._ended() from None

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, 1)
        except TimeoutError:
            self._kill()
            raise CameraError("hung", f"{self._recipe.what}: GStreamer does not answer and was ended") from None
        for descriptor in descriptors:
            self._map(descriptor)
        if not data:
            raise self._ended()
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise self._error(answer)
        return answer

    def _map(self, descriptor: int) -> None:
        if self._memory is not None:
            self._memory.close()
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size, prot=mmap.PROT_READ)
        os.close(descriptor)

    def _ended(self) -> CameraError:
        self._waited(LEAVE_S)
        return CameraError("closed", f"{self._recipe.what}: the GStreamer process ended ({self._process.returncode})")

    def _error(self, answer: dict[str, Any]) -> EdgeinferError:
        text = f"{self._recipe.what}: {answer['error']}"
        if answer["kind"] == "config":
            return ConfigError(text, "gst-launch-1.0 understands the same text")
        if answer["kind"] == "unavailable":
            return UnavailableError(text, self._recipe.remedy)
        return CameraError(answer["code"], text, lasting=bool(answer["lasting"]))

    def _capture(self, answer: dict[str, Any]) -> Capture:
        if answer["width"] * answer["height"] > MAX_PIXELS:
            size = f"{answer['width']} × {answer['height']}"
            raise CameraError("codec", f"{self._recipe.what}: {size} pixels are too many", lasting=True)
        image, age_ns = self._image(answer), answer["age_ns"]
        if self._recipe.clock != "arrival" and self.live and age_ns is not None and 0 <= age_ns < MAX_AGE_NS:
            return stamped(image, self._recipe.clock, age_ns=age_ns)
        return stamped(image, "arrival" if self.live else "file", None if self.live else answer["pts"])

    def _image(self, answer: dict[str, Any]) -> Image:
        """A copy of what lies in the shared memory, (H, W, 3) BGR; the child overwrites that with the next picture."""
        width, height, stride = answer["width"], answer["height"], answer["stride"]
        channels = {"BGR": 3, "BGRx": 4}[answer["format"]]
        assert self._memory is not None  # noqa: S101 (the first picture brings it along)
        rows = np.frombuffer(self._memory, np.uint8, height * stride).reshape(height, stride)
        pixels = rows[:, : width * channels].reshape(height, width, channels)
        if channels == 4:
            image = pool.empty(height, width)
            cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR, dst=image)
            return image
        return pool.copy(pixels)


@functools.lru_cache(maxsize=1)
def find_python() -> str:
    """A Python that has PyGObject: ours, or the system's, for which distributions package it.

    Raises UnavailableError where neither has.
    """
    if _we_have_it():
        return sys.executable
    if Path(SYSTEM_PYTHON).exists():
        probe = [SYSTEM_PYTHON, "-I", "-c", "import gi"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode == 0:  # noqa: S603
                return SYSTEM_PYTHON
    raise UnavailableError("sources through GStreamer need PyGObject, which no Python here has", REMEDY)


def _we_have_it() -> bool:
    return importlib.util.find_spec("gi") is not None
