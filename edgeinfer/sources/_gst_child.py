"""A GStreamer pipeline in a process of its own, which may hang or crash without harm.

Run as a file, by any Python from 3.9 on; it needs PyGObject and nothing else, neither edgeinfer nor numpy. The
parent's end of the talk is `_gst_process.py`.

It talks as `isolation/talk.py` says, over the socket whose number is its last argument. `open` describes the pipelines
to try; a `picture` is told with its stride, format, age and time stamp, and there may be `none` yet.
"""

from __future__ import annotations

import importlib.util
import json
import mmap
import os
import socket
import sys
from typing import Any

WAIT_NS = 300_000_000
START_NS = 5_000_000_000
SPARE = 3
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


HINTS = {"ConfigError": "gst-launch-1.0 understands the same text"}


class Trouble(Exception):  # noqa: N818 (an answer)
    """What goes back to the parent. `kind` is an error of edgeinfer's."""

    def __init__(self, text: str, code: str = "input", kind: str = "CameraError") -> None:
        super().__init__(text)
        self.text, self.code, self.kind = text, code, kind

    def answer(self, spec: dict[str, Any]) -> dict[str, Any]:
        """As the parent reads it."""
        hint = spec["remedy"] if self.kind == "UnavailableError" else HINTS.get(self.kind, "")
        text = f"{spec['what']}: {self.text}"
        return {
            "error": self.kind,
            "message": text,
            "hint": hint,
            "code": self.code,
            "lasting": self.code in LASTING,
        }


class Memory:
    """Memory that the parent has lent for pictures."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.maps: dict[int, mmap.mmap] = {}
        self.free: list[int] = []

    def take_back(self, order: dict[str, Any]) -> None:
        """What the parent does not use any more."""
        self.free += order.get("free", ())

    def given_up(self, keep: int) -> list[int]:
        """Takes leave of all free blocks but so many."""
        dropped = self.free[: max(0, len(self.free) - keep)]
        for number in dropped:
            self.maps.pop(number).close()
            self.free.remove(number)
        return dropped

    def write(self, data: Any) -> int | None:
        """Puts a picture into a block. Returns its number, None where there is no room for it now."""
        size = len(data)
        fitting = [number for number in self.free if len(self.maps[number]) == size] or self.borrow(size)
        for number in fitting:
            self.maps[number][:] = data
            self.free.remove(number)
            return number
        return None

    def borrow(self, size: int) -> list[int]:
        """Another block, where the parent lends one."""
        send(self.peer, {"need": size, "drop": self.given_up(0)})
        answer, descriptors = receive(self.peer)
        self.take_back(answer)
        if "lend" not in answer:
            return []
        self.maps[answer["lend"]] = mmap.mmap(descriptors[0], size)
        self.free.append(answer["lend"])
        os.close(descriptors[0])
        return [answer["lend"]]


class ChildPipeline:
    """A running pipeline that ends in our appsink."""

    def __init__(self, gst: Any, spec: dict[str, Any], memory: Memory) -> None:
        self.gst = gst
        self.memory = memory
        self.waiting: Any = None
        text = self.choose(spec["pipelines"])
        try:
            self.pipeline = gst.parse_launch(text)
        except Exception as error:
            missing = getattr(error, "code", None) == int(gst.ParseError.NO_SUCH_ELEMENT)
            raise Trouble(
                str(getattr(error, "message", error)), kind="UnavailableError" if missing else "ConfigError"
            ) from None
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
        raise Trouble(f"GStreamer has no {missing} here", kind="UnavailableError")

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

    def next(self) -> dict[str, Any]:
        """The answer to `read`."""
        sample, self.waiting = self.waiting or self.sink.emit("try-pull-sample", WAIT_NS), None
        if sample is None:
            self.check_bus()
            return {"end": True} if self.sink.get_property("eos") else {"none": True}
        structure = sample.get_caps().get_structure(0)
        buffer = sample.get_buffer()
        ok, info = buffer.map(self.gst.MapFlags.READ)
        if not ok:
            raise Trouble("a picture can't be read from memory")
        try:
            number = self.memory.write(info.data)
            size = info.size
        finally:
            buffer.unmap(info)
        if number is None:
            self.waiting = None if self.live else sample
            return {"none": True}
        height = structure.get_int("height")[1]
        return {
            "picture": number,
            "drop": self.memory.given_up(SPARE),
            "width": structure.get_int("width")[1],
            "height": height,
            "stride": size // height,
            "format": structure.get_string("format"),
            "pts": None if buffer.pts == self.gst.CLOCK_TIME_NONE else buffer.pts,
            "age_ns": self.age_ns(buffer.pts),
        }

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
        raise Trouble(f"GStreamer's Python bindings are missing: {error}", kind="UnavailableError") from None
    Gst.init([])
    return Gst


def send(peer: socket.socket, message: dict[str, Any]) -> None:
    """One answer."""
    peer.send(json.dumps(message).encode())


def receive(peer: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What the parent says next, with descriptors. Raises EOFError at the end."""
    data, descriptors, _, _ = socket.recv_fds(peer, 1 << 16, 1)
    if not data:
        raise EOFError
    return json.loads(data), descriptors


def confine(spec: dict[str, Any]) -> None:
    """Takes on the limits that the parent wants for us, by its own code."""
    found = importlib.util.spec_from_file_location("confine", spec["confine"])
    assert found is not None and found.loader is not None  # noqa: S101, PT018 (for mypy)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    if spec["memory_bytes"] is None:
        module.die_with(spec["parent"])
    else:
        module.confine(spec["memory_bytes"], parent=spec["parent"])


def main() -> None:
    """Serves one parent to the end."""
    peer = socket.socket(fileno=int(sys.argv[-1]))
    spec = receive(peer)[0]["open"]
    confine(spec)
    memory = Memory(peer)
    try:
        pipeline = ChildPipeline(import_gst(), spec, memory)
        send(peer, {"opened": {"live": pipeline.live, "fps": 0}})
        while True:
            memory.take_back(receive(peer)[0])
            send(peer, pipeline.next())
    except Trouble as trouble:
        send(peer, trouble.answer(spec))
    except EOFError:
        pipeline.pipeline.set_state(pipeline.gst.State.NULL)
    except Exception as error:
        send(peer, Trouble(f"{type(error).__name__}: {error}").answer(spec))
    peer.close()
    os._exit(0)  # GStreamer's threads may hang, and Python would wait for them


if __name__ == "__main__":
    main()
