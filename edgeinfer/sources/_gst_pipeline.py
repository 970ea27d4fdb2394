"""A GStreamer pipeline as its process sees it: chosen, started, read and stopped.

Any Python from 3.9 on; it needs PyGObject and nothing else. `_gst_child.py` loads it by its path.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

WAIT_NS = 300_000_000
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


def fitted(size: Any, most: Any) -> tuple[int, int]:
    """Width and height in which a picture of `size` fits into `most`: no larger than it is, and even (YUV 4:2:0)."""
    scale = min(1.0, most[0] / size[0], most[1] / size[1])
    return max(2, round(size[0] * scale / 2) * 2), max(2, round(size[1] * scale / 2) * 2)


class Lent(Protocol):
    """Memory for pictures, as the pipeline uses it."""

    def write(self, data: Any) -> int | None: ...

    def given_up(self, keep: int) -> list[int]: ...


class ChildPipeline:
    """A pipeline that ends in our appsink, made by the constructor, to be started and stopped."""

    def __init__(self, gst: Any, spec: dict[str, Any], memory: Lent) -> None:
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
        self.live = False
        self.seen: Any = None
        if spec.get("fit"):
            self.scale(spec["fit"], spec["turned"])

    def scale(self, fit: Any, turned: bool) -> None:
        """Has the pipeline's scaler, where it has one, make pictures that fit into `fit`, width and height.

        `turned`: it also turns them on their side. The size is told when what comes is known, before the scaler hears
        of it; `seen` is what comes.
        """
        scaler, size = (self.pipeline.get_by_name(f"edgeinfer_{name}") for name in ("scaler", "size"))
        if scaler is None or size is None:
            return
        gst = self.gst

        def on_event(_: Any, info: Any) -> Any:
            event = info.get_event()
            if event.type == gst.EventType.CAPS:
                came = event.parse_caps().get_structure(0)
                sides = came.get_int("width")[1], came.get_int("height")[1]
                self.seen = sides[::-1] if turned else sides
                across, down = fitted(self.seen, fit)
                text = f"video/x-raw,width={across},height={down},pixel-aspect-ratio=1/1"
                size.set_property("caps", gst.Caps.from_string(text))
            return gst.PadProbeReturn.OK

        scaler.get_static_pad("sink").add_probe(gst.PadProbeType.EVENT_DOWNSTREAM, on_event)

    def choose(self, candidates: list[dict[str, Any]]) -> str:
        """The first pipeline whose elements are all there."""
        for candidate in candidates:
            if all(self.gst.ElementFactory.find(name) for name in candidate["needs"]):
                return str(candidate["text"])
        missing = ", ".join(name for name in candidates[-1]["needs"] if not self.gst.ElementFactory.find(name))
        raise Trouble(f"GStreamer has no {missing} here", kind="UnavailableError")

    def start(self, seconds: float, go_on: Callable[[], None]) -> None:
        """Plays, and finds out whether that is live. What is not may be held up: no picture of it is dropped.

        `go_on` is asked now and then, and raises where it is not to be started any more.
        """
        state, changes = self.gst.State, self.gst.StateChangeReturn
        until_s = time.monotonic() + seconds
        change = self.pipeline.set_state(state.PAUSED)
        while change == changes.ASYNC:
            if time.monotonic() > until_s:
                raise Trouble(f"the pipeline has not started within {seconds:g} s", "timeout")
            change = self.pipeline.get_state(WAIT_NS)[0]
            self.check_bus()
            go_on()
        self.check_bus()
        if change == changes.FAILURE:
            raise Trouble("the pipeline does not start")
        self.live = bool(change == changes.NO_PREROLL)
        self.sink.set_property("drop", self.live)
        self.pipeline.set_state(state.PLAYING)

    def stop(self) -> None:
        """Lets go of all devices."""
        self.pipeline.set_state(self.gst.State.NULL)

    def check_bus(self) -> None:
        """Raises what the pipeline has to complain of."""
        kinds = self.gst.MessageType
        message = self.bus.pop_filtered(kinds.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            code = CODES.get((error.domain, error.code), "input")
            raise Trouble(f"{message.src.get_name()}: {error.message}", code)

    def pull(self) -> Any:
        """The next sample; None where there is none yet."""
        sample, self.waiting = self.waiting or self.sink.emit("try-pull-sample", WAIT_NS), None
        return sample

    def answer(self, sample: Any) -> dict[str, Any]:
        """The answer to `read`."""
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
            "size": size,
            "format": structure.get_string("format"),
            "colorimetry": structure.get_string("colorimetry"),
            "seen": self.seen,
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
