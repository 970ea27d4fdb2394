"""Wire schema v1: what subscribers receive. The JSON Schema in `docs/schema/` is generated from these structs.

A ZeroMQ message is `[topic, payload]`; the topic is `edgeinfer/1/<kind>/<source>/`, the payload JSON or MessagePack.
Inside v1 fields are only ever added. Times are nanoseconds: `t_*_ns` of CLOCK_REALTIME, `t_*_mono_ns` of
CLOCK_MONOTONIC, comparable within one boot of one machine.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edgeinfer import codes

VERSION = 1
DAEMON = "_daemon"
"""The source of messages that speak of the daemon as a whole."""

SOURCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"

Count = Annotated[int, Meta(ge=0)]
Box = tuple[float, float, float, float]
State = codes.State


class _Base(Struct, frozen=True, kw_only=True, tag_field="kind"):
    source: str
    session: Annotated[str, Meta(description="new at every start of the daemon; counters start again with it")]
    t_publish_ns: int
    t_publish_mono_ns: int
    v: Literal[1] = 1


class Detection(Struct, frozen=True):
    """One object. `box` is x1 y1 x2 y2 in float pixels of the captured frame, origin top left."""

    class_id: Count
    label: str
    score: Annotated[float, Meta(ge=0, le=1)]
    box: Box
    track_id: int | UnsetType = UNSET
    keypoints: list[tuple[float, float, float]] | UnsetType = UNSET
    angle: float | UnsetType = UNSET


class TimingMs(Struct, frozen=True, kw_only=True):
    """Where the frame's time went, in milliseconds; `total` is capture to publish."""

    queue: float
    preprocess: float
    infer: float
    decode: float
    total: float


class DetectionsMessage(_Base, frozen=True, kw_only=True, tag="detections"):
    """What was found in one frame. An empty scene is an empty list."""

    seq: Annotated[int, Meta(ge=0, description="published messages of this source; a gap is loss in transport")]
    frame_id: Annotated[int, Meta(ge=0, description="captured frames of this source; a gap is drops before inference")]
    t_capture_ns: int
    t_capture_mono_ns: int
    capture_clock: codes.CaptureClock
    t_media_ns: int | UnsetType = UNSET
    width: Count
    height: Count
    model: str
    backend: str
    timing_ms: TimingMs
    dropped: Annotated[int, Meta(ge=0, description="frames of this source dropped so far, for any reason")]
    detections: list[Detection]


class Reason(Struct, frozen=True):
    """Why a source is in its state: a short code for programs and a sentence for people."""

    code: str
    text: str


class ReloadReport(Struct, frozen=True, kw_only=True):
    """How far the daemon has come with changing its configuration. It counts the requests since its start.

    `finished` is the last request that has been dealt with; those before it are too, as several become one reload.
    `ok` and `text` tell how that went (null while there was none), `changes` what is different now, a line each.
    """

    requested: Count
    finished: Count
    ok: bool | None = None
    text: str = ""
    changes: tuple[str, ...] = ()


class LastCrash(Struct, frozen=True, kw_only=True):
    """How an earlier run of this daemon ended badly; the file `last_crash.json` has the stacks too."""

    code: str
    text: str
    stage: Annotated[str, Meta(description="the stage that stood still, empty where it was none")]
    version: str
    t_ns: int


class MachineVitals(Struct, frozen=True, kw_only=True):
    """What the machine's sensors say. A field is left out where the machine has no such sensor.

    `throttled` names what slows the machine down at this moment, for heat or current.
    """

    throttled: list[str] = []
    temperatures_c: dict[str, float] | UnsetType = UNSET
    gpu_load: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    gpu_hz: Count | UnsetType = UNSET
    power_mode: str | UnsetType = UNSET
    memory_total_bytes: Count | UnsetType = UNSET
    memory_available_bytes: Count | UnsetType = UNSET


class Vitals(Struct, frozen=True, kw_only=True):
    """What only the status of the daemon as a whole says.

    `latency_ms` is stage → p50, p95, p99 of the last thousand frames, `subscribers` how many are connected and listen,
    `rate` the share of live sources' frames that is used: below 1 while the machine is throttled.
    """

    latency_ms: dict[str, dict[str, float]] = {}
    rate: Annotated[float, Meta(gt=0, le=1)] = 1.0
    subscribers: Count | UnsetType = UNSET
    machine: MachineVitals | UnsetType = UNSET


class StatusMessage(_Base, frozen=True, kw_only=True, tag="status"):
    """How a source is, once a second and at every change. Latched: a new subscriber gets the current one at once.

    captured = inferred + dropped + in_flight, always.
    """

    state: State
    reason: Reason | None
    captured: Count
    inferred: Count
    in_flight: Count
    dropped: Count
    dropped_by_reason: dict[str, int]
    fps: Annotated[float, Meta(ge=0, description="results per second over the last seconds")]
    stalls: Annotated[int, Meta(ge=0, description="how often the source went quiet")] = 0
    reconnects: Annotated[int, Meta(ge=0, description="how often it was opened again")] = 0
    clock_step_s: Annotated[
        float | UnsetType, Meta(description="of the daemon: by how much the wall clock was last set while it ran")
    ] = UNSET
    last_crash: Annotated[
        LastCrash | UnsetType, Meta(description="in the daemon's own status, where a run has ended badly")
    ] = UNSET
    reload: Annotated[
        ReloadReport | UnsetType, Meta(description="of the daemon, once it has been asked to reload its configuration")
    ] = UNSET
    vitals: Vitals | UnsetType = UNSET


class ModelInfo(Struct, frozen=True, kw_only=True):
    """The model that runs. `id` is what detections carry; `input_size` is width, height."""

    id: str
    name: str
    sha256: str
    task: str
    input_size: tuple[int, int]
    labels: list[str]


class InfoMessage(_Base, frozen=True, kw_only=True, tag="info"):
    """What the daemon is. Latched like `status`."""

    version: str
    host: str
    boot_id: str
    pid: int
    t_start_ns: int
    model: ModelInfo
    backend: Annotated[str | None, Meta(description="null until the model is loaded")]
    versions: dict[str, str]
    sources: list[str]


Message = DetectionsMessage | StatusMessage | InfoMessage
KINDS: dict[str, type[Message]] = {"detections": DetectionsMessage, "status": StatusMessage, "info": InfoMessage}
Encoding = Literal["json", "msgpack"]

_json_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_msgpack_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def kind_of(message: Message) -> str:
    """The message's kind as it stands in the topic."""
    return str(type(message).__struct_config__.tag)


def topic(kind: str, source: str = "") -> bytes:
    """The topic of a kind and source; without a source, the prefix of all of that kind."""
    return f"edgeinfer/{VERSION}/{kind}/{source}/".encode() if source else f"edgeinfer/{VERSION}/{kind}/".encode()


def encode(message: Message, encoding: Encoding = "json") -> bytes:
    """The payload."""
    return msgspec.json.encode(message) if encoding == "json" else msgspec.msgpack.encode(message)


def decode(payload: bytes) -> Message:
    """The typed message in a payload of either encoding; the first byte tells which.

    Raises msgspec.MsgspecError, or UnicodeDecodeError, where the payload is not a message of schema v1. Unknown fields
    are ignored.
    """
    try:
        return _json_decoder.decode(payload) if payload[:1] == b"{" else _msgpack_decoder.decode(payload)
    except RecursionError:
        raise msgspec.DecodeError("nested too deep") from None


def json_schema(kind: str) -> bytes:
    """The JSON Schema of a kind, indented, as it stands in `docs/schema/`."""
    schema = msgspec.json.schema(KINDS[kind])
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"
