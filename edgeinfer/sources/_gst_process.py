"""The parent's side of a GStreamer process: describes what it plays, and takes its pictures."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeinfer.errors import CameraError, StalledError, TemporaryError, UnavailableError
from edgeinfer.guard import confine
from edgeinfer.guard.limits import MAX_PIPELINE_BYTES
from edgeinfer.guard.scarcity import is_scarce, lack_of_descriptors
from edgeinfer.isolation.source import MAX_TIME_NS, IsolatedSource
from edgeinfer.isolation.spawned import Spawned, spawn
from edgeinfer.isolation.talk import whole
from edgeinfer.recipe import BINDINGS
from edgeinfer.sources._clock import stamped
from edgeinfer.sources._gst_picture import raw_picture
from edgeinfer.types import Capture, CaptureClock, Picture, Start

log = logging.getLogger(__name__)

CHILD, PIPELINE = (Path(__file__).with_name(name) for name in ("_gst_child.py", "_gst_pipeline.py"))
SYSTEM_PYTHON = "/usr/bin/python3"
READ_DEADLINE_S = 2.0
START_S = 90.0
"""GStreamer's first start on a machine looks through all plugins, for a minute perhaps. Then the process gives up."""
MORE_S = 10.0
"""A process that has not given up by then hangs."""
LEAVE_S, ARGUS_LEAVE_S = 2.0, 8.0
"""So long a process may take to stop its pipeline; a camera that it does not let go of in order stays taken."""
ARGUS, STUCK = "nvargus", "argus-stuck"
ANSWER_S = 3.0
"""The child answers every 0.3 s, with or without a picture; one that does not hangs."""
MAX_AGE_NS = 1_000_000_000
REMEDY = f"apt install {BINDINGS} gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
PROBE = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst"
PROBE_S = 20.0

SINK = "appsink name=edgeinfer_sink sync=false drop=true max-buffers=1"
TO_SINK = f"videoconvert ! video/x-raw,format=(string){{I420,NV12,P010_10LE,BGR,BGRx}} ! {SINK}"
"""What a decoder gives in one of these formats is not converted."""
FROM_NVMM_TO_SINK = (
    f"nvvidconv name=edgeinfer_scaler ! capsfilter name=edgeinfer_size caps=video/x-raw ! "
    f"video/x-raw,format=(string)NV12 ! {SINK}"
)
"""nvvidconv scales on the VIC; the CPU copies what comes out of it, once."""


def start() -> Start:
    """How long a start may take in all."""
    return Start(
        START_S + MORE_S, "GStreamer is starting; the first time on a machine it looks through all its plugins"
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """Pipelines to try, the first whose elements are all there is taken; and properties that no process list shows.

    `what` is the source as errors call it. `clock` is who stamps its buffers, `remedy` what brings missing elements.
    `memory_bytes` bounds the process's private memory; None doesn't. `leave_s`: how long stopping may take.
    `fit`: width and height that pictures need not exceed, where something can scale them at no cost; `turned`: whether
    it also turns them on their side.
    """

    what: str
    pipelines: Sequence[tuple[Sequence[str], str]]
    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    clock: CaptureClock = "driver"
    remedy: str = REMEDY
    memory_bytes: int | None = MAX_PIPELINE_BYTES
    fit: tuple[int, int] | None = None
    turned: bool = False

    @property
    def argus(self) -> bool:
        """Whether it reads a CSI camera, through nvargus-daemon."""
        return any(ARGUS in text for _, text in self.pipelines)

    @property
    def leave_s(self) -> float:
        """How long its process may take to stop, in seconds."""
        return ARGUS_LEAVE_S if self.argus else LEAVE_S

    @property
    def alone(self) -> str:
        """The name of what one process at a time can have; empty where there is no such thing."""
        if not self.argus:
            return ""
        sensor = re.search(r"\bsensor-id\s*=\s*(\d+)", self.pipelines[0][1])
        return f"edgeinfer-{os.geteuid()}-{ARGUS}-{sensor[1] if sensor else 0}"

    def to_plain(self) -> dict[str, Any]:
        """As the child reads it."""
        return {
            "what": self.what,
            "pipelines": [{"needs": list(needs), "text": text} for needs, text in self.pipelines],
            "properties": self.properties,
            "remedy": self.remedy,
            "memory_bytes": self.memory_bytes,
            "confine": confine.__file__,
            "pipeline": str(PIPELINE),
            "parent": os.getpid(),
            "start_s": START_S,
            "leave_s": self.leave_s,
            "alone": self.alone,
            "fit": self.fit,
            "turned": self.turned,
        }


class GstSource(IsolatedSource):
    """See `Source`. A pipeline in a child process; one that is not live is never made to drop a picture."""

    def __init__(self, recipe: Recipe, python: str | None = None) -> None:
        """Raises CameraError, ConfigError for a pipeline that is none, UnavailableError where GStreamer is missing."""
        self._process: Spawned
        self._recipe = recipe
        self._last_pts: int | None = None
        command = [python or find_python(), "-I", str(CHILD)]
        try:
            process = spawn(command, recipe.leave_s)
        except OSError as error:
            if is_scarce(error):
                raise TemporaryError(f"no process for GStreamer: {error.strerror}") from None
            raise UnavailableError(f"{command[0]}: {error.strerror}", "python names a Python 3 with gi") from None
        super().__init__(process, recipe.to_plain(), recipe.what, lambda _: ANSWER_S, start().seconds)

    def read(self) -> Capture | None:
        """See `Source.read`. A buffer with the time stamp of the one before is no new picture."""
        deadline = time.monotonic() + READ_DEADLINE_S
        while True:
            answer = self._ask({"read": True}, ANSWER_S)
            if "end" in answer:
                if self.live:
                    raise CameraError("closed", f"{self._recipe.what}: the stream ended")
                return None
            if "none" not in answer:
                with self._guarded():
                    capture = self._new(answer)
                if capture is not None:
                    return capture
            if self.live and time.monotonic() > deadline:
                raise StalledError(f"{self._recipe.what}: no new picture within {READ_DEADLINE_S:g} s")

    def _take_leave(self) -> None:
        """The end of the talk is what it leaves at, and its process is then given the time for it."""

    def _end(self) -> str:
        how = super()._end()
        # By SIGTERM it ends only where it has not begun: later it is a request.
        if self._recipe.argus and self._process.child.returncode not in (0, -signal.SIGTERM):
            _mark_stuck(self._recipe.what)
        return how

    def _new(self, answer: dict[str, Any]) -> Capture | None:
        """What an answer shows; None where its time stamp is that of the picture before. Raises Nonsense."""
        pts = None if answer.get("pts") is None else whole(answer, "pts", 0, MAX_TIME_NS)
        raw = raw_picture(answer, self._recipe.what)
        pixels = self._lender.pixels(answer.get("picture"), raw.size)
        picture = self._with_room(lambda: raw.picture(pixels))
        if pts is not None and pts == self._last_pts:
            return None
        self._last_pts = pts
        age_ns = answer.get("age_ns")
        if self._recipe.clock != "arrival" and self.live and isinstance(age_ns, int) and 0 <= age_ns < MAX_AGE_NS:
            capture = stamped(picture, self._recipe.clock, age_ns=age_ns)
        else:
            capture = stamped(picture, "arrival" if self.live else "file", None if self.live else pts)
        return capture if raw.seen is None else replace(capture, seen=raw.seen)

    def _with_room(self, make: Callable[[], Picture]) -> Picture:
        """Made where there is memory for it. One that is not a camera's waits for that however long it takes."""
        while True:
            try:
                return make()
            except StalledError:
                if self.live:
                    raise


@functools.lru_cache(maxsize=1)
def find_python() -> str:
    """A Python that can use GStreamer: ours, or the system's, for which distributions package what it takes.

    Raises UnavailableError where neither can, TemporaryError where that can't be found out now.
    """
    if lack := lack_of_descriptors():
        raise TemporaryError(f"no process for GStreamer: {lack}")
    ours = [sys.executable] if _we_have_it() else []
    for python in (*ours, SYSTEM_PYTHON):
        if _can(python):
            return python
    raise UnavailableError("no Python here can use GStreamer (PyGObject, and GStreamer's description for it)", REMEDY)


def _mark_stuck(what: str) -> None:
    """Says that nvargus-daemon holds a camera: in the log, and as a file for a unit that may start it again."""
    log.warning("%s: it was not stopped in order; where it can't be opened now: systemctl restart nvargus-daemon", what)
    folder = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if folder:
        with contextlib.suppress(OSError):
            (Path(folder) / STUCK).touch()


def _can(python: str) -> bool:
    """Whether a Python can use GStreamer. Raises TemporaryError where it does not answer."""
    command = [python, "-I", "-c", PROBE]
    try:
        return subprocess.run(command, capture_output=True, timeout=PROBE_S, check=False).returncode == 0  # noqa: S603
    except subprocess.TimeoutExpired:
        raise TemporaryError(f"no process for GStreamer: {python} has not answered for {PROBE_S:g} s") from None
    except OSError:
        return False


def _we_have_it() -> bool:
    return importlib.util.find_spec("gi") is not None
