"""A GStreamer pipeline in a process of its own, which may hang or crash without harm.

Run as a file, by any Python from 3.9 on; it needs PyGObject and nothing else, neither edgeinfer nor numpy. The
parent's end of the talk is `_gst_process.py`.

Over a socket (its number is the only argument) come a JSON object that describes the pipelines to try, then `next` for
every picture. Answers are JSON objects: {"live"}, {"width", "height", "stride", "format", "age_ns", "pts"} with the
pixels in shared memory (its descriptor comes along when it is new), {"none"}, {"end"} or {"error", "code", "kind"}.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
WAIT_NS = 300_000_000
START_NS = 5_000_000_000
LASTING = {"unauthorized", "not_found", "codec"}

CODES = {
    ("gst-resource-error-quark", 3): "not_found",
    ("gst-resource-error-quark", 15): "unauthorized",
    ("gst-resource-error-quark", 9): "closed",
    ("gst-stream-error-quark", 4): "codec",
    ("gst-stream-error-quark", 5): "codec",
    ("gst-stream-error-quark", 6): "codec",
    ("gst-core-error-quark", 12): "codec",
}
"""GStreamer's errors (GstResourceError, GstStreamError, GstCoreError) as reasons of ours; the others are `input`."""


class Trouble(Exception):  # noqa: N818 (an answer)
    """What goes back to the parent. `kind`: camera, config or unavailable."""

    def __init__(self, text: str, code: str = "input", kind: str = "camera") -> None:
        super().__init__(text)
        self.answer = {"error": text, "code": code, "kind": kind, "lasting": code in LASTING}


class Memory:
    """Shared memory for one picture, made anew when a picture does not fit."""

    def __init__(self) -> None:
        self.map: mmap.mmap | None = None
        self.fresh: int | None = None

    def write(self, data: Any) -> None:
        """Puts a picture there."""
        if self.map is None or len(self.map) < len(data):
            self.fresh = os.memfd_create("edgeinfer-frame")
            os.ftruncate(self.fresh, len(data))
            self.map = mmap.mmap(self.fresh, len(data))
        self.map[: len(data)] = bytes(data)

    def take_descriptor(self) -> int | None:
        """The new memory's descriptor, once."""
        fresh, self.fresh = self.fresh, None
        return fresh


class ChildPipeline:
    """A running pipeline that ends in our appsink."""

    def __init__(self, gst: Any, spec: dict[str, Any]) -> None:
        self.gst = gst
        self.memory = Memory()
        text = self.choose(spec["pipelines"])
        try:
            self.pipeline = gst.parse_launch(text)
        except Exception as error:
            missing = getattr(error, "code", None) == int(gst.ParseError.NO_SUCH_ELEMENT)
            raise Trouble(str(getattr(error, "message", error)), kind="unavailable" if missing else "config") from None
        for name, properties in spec.get("properties", {}).items():
            element = self.pipeline.get_by_name(name)
            for key, value in properties.items():
                element.set_property(key, value)
        self.sink = self.pipeline.get_by_name("edgeinfer_sink")
        self.bus = self.pipeline.get_bus()
        self.live = self.start()

    def choose(self, candidates: list[dict[str, Any]]) -> str:
        """The first pipeline whose elements are all there."""
        for candidate in candidates:
            if all(self.gst.ElementFactory.find(name) for name in candidate["needs"]):
                return str(candidate["text"])
        missing = ", ".join(name for name in candidates[-1]["needs"] if not self.gst.ElementFactory.find(name))
        raise Trouble(f"GStreamer has no {missing} here", kind="unavailable")

    def start(self) -> bool:
        """Whether what plays is live. A pipeline that is not may be held up: no picture of it is dropped."""
        state = self.gst.State
        change = self.pipeline.set_state(state.PAUSED)
        if change == self.gst.StateChangeReturn.ASYNC:
            change = self.pipeline.get_state(START_NS)[0]
        self.check_bus()
        if change == self.gst.StateChangeReturn.FAILURE:
            raise Trouble("the pipeline does not start")
        live = bool(change == self.gst.StateChangeReturn.NO_PREROLL)
        self.sink.set_property("drop", live)
        self.pipeline.set_state(state.PLAYING)
        return live

    def check_bus(self) -> None:
        """Raises what the pipeline has to complain of."""
        kinds = self.gst.MessageType
        message = self.bus.pop_filtered(kinds.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            code = CODES.get((error.domain, error.code), "input")
            raise Trouble(f"{message.src.get_name()}: {error.message}", code)

    def next(self) -> tuple[dict[str, Any], int | None]:
        """The answer to `next`, with the shared memory's descriptor where that is new."""
        sample = self.sink.emit("try-pull-sample", WAIT_NS)
        if sample is None:
            self.check_bus()
            return ({"end": True} if self.sink.get_property("eos") else {"none": True}), None
        structure = sample.get_caps().get_structure(0)
        buffer = sample.get_buffer()
        ok, info = buffer.map(self.gst.MapFlags.READ)
        if not ok:
            raise Trouble("a picture can't be read from memory")
        try:
            self.memory.write(info.data)
            size = info.size
        finally:
            buffer.unmap(info)
        height = structure.get_int("height")[1]
        answer = {
            "width": structure.get_int("width")[1],
            "height": height,
            "stride": size // height,
            "format": structure.get_string("format"),
            "pts": buffer.pts,
            "age_ns": self.age_ns(buffer.pts),
        }
        return answer, self.memory.take_descriptor()

    def age_ns(self, pts: int) -> int | None:
        """How long ago a buffer was stamped, by the pipeline's clock."""
        clock = self.pipeline.get_clock()
        if pts == self.gst.CLOCK_TIME_NONE or clock is None:
            return None
        return int(clock.get_time() - self.pipeline.get_base_time() - pts)


def import_gst() -> Any:
    """The module Gst, initialised."""
    try:
        import gi  # noqa: PLC0415 (its absence is an answer)

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst  # noqa: PLC0415
    except (ImportError, ValueError) as error:
        raise Trouble(f"GStreamer's Python bindings are missing: {error}", kind="unavailable") from None
    Gst.init([])
    return Gst


def send(peer: socket.socket, answer: dict[str, Any], descriptor: int | None = None) -> None:
    """One answer."""
    socket.send_fds(peer, [json.dumps(answer).encode()], [] if descriptor is None else [descriptor])
    if descriptor is not None:
        os.close(descriptor)


def main() -> None:
    """Serves one parent to the end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody is left who could end it after the parent
    peer = socket.socket(fileno=int(sys.argv[1]))
    spec = json.loads(peer.recv(1 << 16))  # before anything can fail: an answer beside unread data is lost
    try:
        pipeline = ChildPipeline(import_gst(), spec)
        send(peer, {"live": pipeline.live})
        while peer.recv(16):
            send(peer, *pipeline.next())
        pipeline.pipeline.set_state(pipeline.gst.State.NULL)
    except Trouble as trouble:
        send(peer, trouble.answer)
    except Exception as error:
        send(peer, Trouble(f"{type(error).__name__}: {error}").answer)
    peer.close()
    os._exit(0)  # GStreamer's threads may hang, and Python would wait for them


if __name__ == "__main__":
    main()
