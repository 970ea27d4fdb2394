"""The four kinds of plugin, and who may call them from which thread.

A plugin is one module in `sources/`, `backends/`, `decoders/` or `sinks/`: an `Options` struct and a function `open`
that takes those options (and what its kind adds, see `config/plugins.py`) and returns one of the objects below. What an
object can do besides has a Protocol of its own here (`TakesSurfaces`, `Blamable`, `Listening`, …): it has the
members, or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from edgeinfer.guard.printable import printable
from edgeinfer.messages import Message
from edgeinfer.types import (
    Candidates,
    Capture,
    DecoderChoice,
    Detections,
    Letterbox,
    Outputs,
    Result,
    Start,
    Surface,
    TensorSpec,
)


@runtime_checkable
class Reconnecting(Protocol):
    """What a source's module has besides that knows whether its sources are cameras, to be opened again and again.

    Without it that is up to the source: a live one is opened again once it has been open.
    """

    RECONNECT: bool


@runtime_checkable
class Reopening(Protocol):
    """The same of a module that knows it by a source's options."""

    def reconnects(self, uri: str, options: Any) -> bool:
        """Whether this one is to be opened again and again."""


@runtime_checkable
class Isolating(Protocol):
    """What a source's module has besides that knows which of its sources are better off in processes of their own.

    Without it none is, unless the configuration says so.
    """

    def isolate(self, uri: str, options: Any) -> bool | None:
        """Whether this one is, since it decodes what others send; None where it makes a process of its own anyway."""


class PacketSource(Protocol):
    """Gives a camera's packets, as `codecs.facts` has them. Used by one thread."""

    @property
    def facts(self) -> Any: ...

    def next(self) -> Any:
        """The next packet. Blocks no longer than its deadline. Raises CameraError."""

    def close(self) -> None:
        """Takes leave of the camera. Called once."""


@runtime_checkable
class Relaying(Protocol):
    """What a source's module has besides whose packets may come from another process than the one that decodes them."""

    def relays(self, uri: str, options: Any) -> bool:
        """Whether this one's are to."""

    def open_packets(self, uri: str, options: Any) -> PacketSource:
        """In a process that was made for it. Raises what `open` does."""

    def open_relayed(self, packets: Any, options: Any) -> Any:
        """The source, of packets that come from there; it closes them. Raises what `open` does, and Elsewhere."""


@runtime_checkable
class Scaling(Protocol):
    """What a source's module has besides that can have pictures made smaller in hardware, before the CPU has them."""

    def scales(self, uri: str, options: Any) -> bool:
        """Whether it would do so for this source: one that does is opened again when another size is wanted."""

    def open_fitted(self, uri: str, options: Any, fit: tuple[int, int]) -> Source:
        """As `open`, where no picture need be larger than `fit`, width and height. `Capture.seen` says what it was.

        Called for a source that `scales`.
        """


@runtime_checkable
class SlowStarting(Protocol):
    """What a source's module has besides that knows which of its sources take long to be opened."""

    def starting(self, uri: str, options: Any) -> Start | None:
        """How long opening this one may take, and why; None for as long as it may take any other."""


class Source(Protocol):
    """Gives pictures. Opened, read and closed by one thread of its own, which is left behind where it never returns.

    `live`: the newest frame wins and older ones may be dropped; otherwise every frame waits for its turn.
    `fps`: the nominal rate in frames per second, 0 where there is none.
    """

    live: bool
    fps: float

    def read(self) -> Capture | None:
        """The next picture, or None at the end. The caller owns it.

        Blocks, but for a live source never longer than its read deadline.
        Raises StalledError on that deadline, InputError where reading on makes no sense (CameraError says with a code
        why), UnreadableItem where one picture is bad and the next may be good, and NoRoom at once. After an InputError
        the source is closed, and opened again where it is one that reconnects.
        """

    def close(self) -> None:
        """Gives the device or file back. Called once, after the last read."""


@runtime_checkable
class Decoding(Protocol):
    """What a source has besides that decodes video: with what, and why."""

    @property
    def decoder(self) -> DecoderChoice: ...


class NoRoom(Exception):  # noqa: N818 (not a failure of the source)
    """A source has no memory for its next picture: those that it gave are in use. One that waits may give way.

    It costs nothing: no picture was taken from the source.
    """


class UnreadableItem(Exception):  # noqa: N818 (not a failure of the source)
    """One picture of a source can't be read; the ones after it may be fine."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


@dataclass(frozen=True, slots=True)
class Filter:
    """What a decoder reads of (N, M, 4) boxes and (N, M, classes) scores: rows whose best class has at least `score`.

    A backend may apply it where the outputs lie, and hand over the `Candidates` alone.
    """

    boxes: str
    scores: str
    score: float

    @property
    def reads(self) -> tuple[str, str]:
        """The outputs' names."""
        return self.boxes, self.scores


@dataclass(slots=True)
class Slot:
    """One batch in flight, with the buffers that belong to it. The backend makes it and lends it out.

    From `collect` until `release` either `candidates` is there, or `outputs` for the first `count` pictures.
    """

    outputs: Outputs = field(default_factory=dict)
    candidates: Candidates | None = None
    count: int = 0
    infer_ms: float = 0.0


class Backend(Protocol):
    """Runs the network on batches, several at a time. Used by the inference thread alone.

    Whoever acquires a slot owns it until `submit` has returned. Where `load` or `submit` raises, it is still the
    caller's, to be given back by `release`. From `submit` on it is the backend's, until `collect` lends it again; where
    `collect` raises OutOfMemoryError, the backend has taken the oldest batch's slot back.

    `name` says what really runs, for instance "onnxruntime-cpu", and `detail` how, in a few words.
    `max_batch` and `slots` bound the work in flight.
    `lane_depth` is how many frames of one file may wait their turn: as many as one batch should take of it.
    """

    name: str
    detail: str
    max_batch: int
    slots: int
    lane_depth: int
    versions: dict[str, str]
    output_specs: Sequence[TensorSpec]

    def prepare(self, wanted: Filter | None) -> None:
        """Told before the first batch what the decoder will read; a backend may leave out the rest.

        Told again when another decoder takes over, with batches of the one before still in flight: only the threshold
        may be another then.
        """

    def acquire(self) -> Slot | None:
        """A free slot to fill, or None while all are in flight. Never blocks."""

    def load(self, slot: Slot, pictures: Sequence[Any]) -> Sequence[Letterbox]:
        """Preprocesses up to `max_batch` pictures into the slot. They must stay as they are until it is collected.

        Each is an `Image`, or a `Surface` that the backend `takes` (see `TakesSurfaces`).
        Raises OutOfMemoryError, FatalError or StickyError.
        """

    def submit(self, slot: Slot) -> None:
        """Starts inference on what was loaded. Never waits for the result. Raises what `load` raises."""

    def collect(self, timeout_s: float) -> Slot | None:
        """The oldest batch in flight once it is done, or None after `timeout_s`. Batches come in submission order.

        Raises FatalError where the device can't go on, StickyError where the process must end at once, and
        OutOfMemoryError where the oldest batch did not fit.
        """

    def release(self, slot: Slot) -> None:
        """Gives a slot back, filled or not; its outputs may be overwritten from now on."""

    def close(self) -> None:
        """Waits for what runs and frees everything. Called once."""


class Decoder(Protocol):
    """Turns raw outputs into detections. Pure; called by the inference thread.

    `filter` is what it reads of them, where that can be said; it must then take `Candidates` too.
    """

    outputs: tuple[str, ...]
    filter: Filter | None

    def check(self, specs: Sequence[TensorSpec], labels: int) -> None:
        """Raises ConfigError where the network's outputs are not what this decoder reads."""

    def decode(self, outputs: Outputs | Candidates, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        """One Detections per letterbox, in order, in pixels of its frame. Returned arrays don't alias `outputs`."""


class Sink(Protocol):
    """Takes messages. All calls come from one thread.

    `blocks`: whether a call may wait for somebody else (a reader, a disk); such a sink gets a thread of its own.
    """

    blocks: bool

    def write(self, message: Message, result: Result | None) -> None:
        """One message; for detections `result` is what it was made of (its frame included), read-only."""

    def service(self) -> None:
        """Called at least every 50 ms, also when nothing is published; not where `blocks` is true."""

    def close(self) -> None:
        """Flushes and closes. Called once."""


@runtime_checkable
class TakesSurfaces(Protocol):
    """What a backend has besides that preprocesses pictures as decoders give them. Others get them as BGR images."""

    def takes(self, surface: Surface) -> bool:
        """Whether `load` accepts it."""


@runtime_checkable
class Blamable(Protocol):
    """What a backend has besides that runs something which may be at fault by itself, and is remembered for it.

    `engine_key` names it, empty where it is nothing that is kept.
    """

    @property
    def engine_key(self) -> str: ...

    def blame(self) -> None:
        """It has failed, or the process is about to end because of it. From any thread; touches no device."""


@runtime_checkable
class Listening(Protocol):
    """What a sink has besides that others connect to: where, and how many listen."""

    @property
    def endpoint(self) -> str: ...

    @property
    def subscribers(self) -> int: ...


@runtime_checkable
class Recovering(Protocol):
    """What a sink has besides that goes on by itself after its disk or reader has failed: it says what it loses.

    `trouble`: why what it is given now is lost, empty while it isn't. `reason`: the last trouble that there was.
    `lost`: messages that were not written so far. Read by any thread.
    """

    @property
    def trouble(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def lost(self) -> int: ...


@runtime_checkable
class Selective(Protocol):
    """What a sink has besides that says whether it looks at pictures. One that doesn't may keep many messages waiting.

    Without it a sink is held to look at them.
    """

    pictures: bool


@runtime_checkable
class Forgetful(Protocol):
    """What a sink has besides that keeps something for every source."""

    def forget(self, source: str) -> None:
        """`source` is no longer part of the run. On the thread that writes."""
