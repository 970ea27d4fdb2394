"""Wire schema v1: what subscribers receive. The JSON Schema in `docs/schema/` is generated from these structs.

A ZeroMQ message is `[topic, payload]`; the topic is `edgeinfer/1/<kind>/<source>/`, the payload JSON or MessagePack.
Inside v1 fields are only ever added. Times are nanoseconds: `t_*_ns` of CLOCK_REALTIME, `t_*_mono_ns` of
CLOCK_MONOTONIC, comparable within one boot of one machine.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edgeinfer import codes

VERSION = 1
DAEMON = "_daemon"
"""The source of messages that speak of the daemon as a whole."""

SOURCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$(?!\n)"
"""Python's `$` is also before a line feed at the end, so that none may follow; JSON Schema's is not."""

Box = tuple[float, float, float, float]
State = codes.State


def _about(text: str) -> Meta:
    """What a field means, for the JSON Schema and `docs/messages.md`."""
    return Meta(description=text)


def _count(text: str) -> Meta:
    """The same for a number that is never below 0."""
    return Meta(ge=0, description=text)


class _Base(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every message has."""

    source: Annotated[str, _about("the source's name in the configuration, `_daemon` for the daemon as a whole")]
    session: Annotated[str, _about("new at every start of the daemon; counters start again with it")]
    t_publish_ns: Annotated[int, _about("when the message was made, CLOCK_REALTIME")]
    t_publish_mono_ns: Annotated[int, _about("the same instant, CLOCK_MONOTONIC")]
    v: Annotated[Literal[1], _about("the version of the schema")] = 1


class Detection(Struct, frozen=True):
    """One object."""

    class_id: Annotated[int, _count("index into the model's labels")]
    label: Annotated[str, _about("the class in words")]
    score: Annotated[float, Meta(ge=0, le=1, description="how sure the network is")]
    box: Annotated[Box, _about("x1 y1 x2 y2 in pixels of the captured frame, origin top left")]
    track_id: Annotated[int | UnsetType, _about("reserved; not filled in yet")] = UNSET
    keypoints: Annotated[list[tuple[float, float, float]] | UnsetType, _about("reserved; not filled in yet")] = UNSET
    angle: Annotated[float | UnsetType, _about("reserved; not filled in yet")] = UNSET


class TimingMs(Struct, frozen=True, kw_only=True):
    """Where the frame's time went, in milliseconds."""

    queue: Annotated[float, _about("from capture to preprocessing")]
    preprocess: Annotated[float, _about("of the whole batch that the frame was in")]
    infer: Annotated[float, _about("of the whole batch; with TensorRT since its launch, others before or beside it")]
    decode: Annotated[float, _about("of the whole batch")]
    total: Annotated[
        float, _about("from capture to publish: queue + preprocess + wait + infer + decode + publish, to the rounding")
    ]
    receive: Annotated[
        float | UnsetType, _about("the part of `queue` from the capture's stamp until the daemon had the frame")
    ] = UNSET
    wait: Annotated[
        float | UnsetType,
        _about(
            "of the whole batch: handed to the backend and not run yet, or done and not fetched yet; "
            "with TensorRT its waiting on the GPU is in `infer`"
        ),
    ] = UNSET
    publish: Annotated[float | UnsetType, _about("from the result to its message")] = UNSET


class DetectionsMessage(_Base, frozen=True, kw_only=True, tag="detections"):
    """What was found in one frame. An empty scene is an empty list."""

    seq: Annotated[int, _count("published messages of this source; a gap is loss in transport")]
    frame_id: Annotated[int, _count("captured frames of this source; a gap is drops before inference")]
    t_capture_ns: Annotated[int, _about("when the frame was captured, CLOCK_REALTIME")]
    t_capture_mono_ns: Annotated[int, _about("the same instant, CLOCK_MONOTONIC")]
    capture_clock: Annotated[codes.CaptureClock, _about("who stamped the capture")]
    t_media_ns: Annotated[int | UnsetType, _about("the place in a file's own timeline, where there is one")] = UNSET
    width: Annotated[int, _count("of the captured frame, in pixels")]
    height: Annotated[int, _count("of the captured frame, in pixels")]
    model: Annotated[str, _about("the `id` of the model that ran")]
    backend: Annotated[str, _about("what ran it on this frame, for instance `tensorrt-fp16`")]
    timing_ms: Annotated[TimingMs, _about("where the frame's time went")]
    dropped: Annotated[int, _count("frames of this source dropped so far, for any reason")]
    detections: Annotated[list[Detection], _about("the objects, best score first")]


class Reason(Struct, frozen=True):
    """Why a source is in its state: a short code for programs and a sentence for people."""

    code: Annotated[str, _about("one of those in `edgeinfer/codes.py`")]
    text: Annotated[str, _about("one line, without credentials")]


class ReloadReport(Struct, frozen=True, kw_only=True):
    """How far the daemon has come with changing its configuration. Several requests may become one reload."""

    requested: Annotated[int, _count("how often it has been asked since its start")]
    finished: Annotated[int, _count("the last request that has been dealt with; those before it are too")]
    ok: Annotated[bool | None, _about("whether that succeeded; null while there was none")] = None
    text: Annotated[str, _about("what is different now, or why nothing is, in one line")] = ""
    changes: Annotated[tuple[str, ...], _about("what is different now, a line each")] = ()


class LastCrash(Struct, frozen=True, kw_only=True):
    """How an earlier run of this daemon ended badly; the file `last_crash.json` has the stacks too."""

    code: Annotated[str, _about("one of the crash codes")]
    text: Annotated[str, _about("what happened, in one line")]
    stage: Annotated[str, _about("the stage that stood still, empty where it was none")]
    version: Annotated[str, _about("the edgeinfer that ran then")]
    t_ns: Annotated[int, _about("when it ended, CLOCK_REALTIME")]


class MachineVitals(Struct, frozen=True, kw_only=True):
    """What the machine's sensors say. A field is left out where the machine has no such sensor."""

    throttled: Annotated[list[str], _about("what slows the machine down at this moment, for heat or current")] = []
    temperatures_c: Annotated[dict[str, float] | UnsetType, _about("thermal zone → °C")] = UNSET
    gpu_load: Annotated[float, Meta(ge=0, le=1, description="share of the GPU's time in use")] | UnsetType = UNSET
    gpu_hz: Annotated[int, _count("the GPU's clock")] | UnsetType = UNSET
    power_mode: Annotated[str | UnsetType, _about("a Jetson's power mode")] = UNSET
    power_mw: Annotated[dict[str, int] | UnsetType, _about("power rail → mW")] = UNSET
    origins: Annotated[
        dict[str, str] | UnsetType, _about("field → what told it, where that was no file of the kernel")
    ] = UNSET
    memory_total_bytes: Annotated[int, _count("the machine's memory")] | UnsetType = UNSET
    memory_available_bytes: Annotated[int, _count("what of it can still be had")] | UnsetType = UNSET


class SinkVitals(Struct, frozen=True, kw_only=True):
    """How a sink is."""

    ok: Annotated[bool, _about("whether it takes what it is given")]
    lost: Annotated[int, _count("messages that it has not taken so far")]
    text: Annotated[str, _about("why not, in one line, empty while it does")] = ""


class Vitals(Struct, frozen=True, kw_only=True):
    """What only the status of the daemon as a whole says."""

    latency_ms: Annotated[
        dict[str, dict[str, float]], _about("stage → p50, p95 and p99 of the last thousand frames")
    ] = {}
    rate: Annotated[
        float, Meta(gt=0, le=1, description="share of live sources' frames in use; below 1 while throttled")
    ] = 1.0
    subscribers: Annotated[int, _count("how many are connected and subscribed to something")] | UnsetType = UNSET
    machine: Annotated[MachineVitals | UnsetType, _about("what the machine's sensors say")] = UNSET
    sinks: Annotated[dict[str, SinkVitals] | UnsetType, _about("sink → how it is")] = UNSET


class VideoDecoderInfo(Struct, frozen=True, kw_only=True):
    """What decodes a source's video."""

    name: Annotated[str, _about("as `decoder` in the configuration names it")]
    why: Annotated[str, _about("why that, in a few words for people")]


class StatusMessage(_Base, frozen=True, kw_only=True, tag="status"):
    """How a source is, once a second and at every change. Latched: a new subscriber gets the current one at once.

    captured = inferred + dropped + in_flight, always. The daemon's own status sums up all sources of the session, those
    that were removed included.
    """

    state: Annotated[State, _about("of the source; of the daemon starting, running, ended or failed")]
    reason: Annotated[Reason | None, _about("why it is in that state; of the daemon, its news")]
    captured: Annotated[int, _count("frames read so far")]
    inferred: Annotated[int, _count("frames with a result so far")]
    in_flight: Annotated[int, _count("frames captured and not done yet")]
    dropped: Annotated[int, _count("frames given up so far")]
    dropped_by_reason: Annotated[dict[str, int], _about("drop reason → how many of them")]
    fps: Annotated[float, _count("results per second over the last seconds")]
    stalls: Annotated[int, _count("how often the source went quiet")] = 0
    reconnects: Annotated[int, _count("how often it was opened again")] = 0
    decoder: Annotated[
        VideoDecoderInfo | UnsetType, _about("what decodes its video, once it has been opened; where that is edgeinfer")
    ] = UNSET
    clock_step_s: Annotated[
        float | UnsetType, _about("of the daemon: by how much the wall clock was last set while it ran")
    ] = UNSET
    last_crash: Annotated[
        LastCrash | UnsetType, _about("of the daemon: how an earlier run ended badly, where one did")
    ] = UNSET
    reload: Annotated[
        ReloadReport | UnsetType, _about("of the daemon, once it has been asked to reload its configuration")
    ] = UNSET
    vitals: Annotated[Vitals | UnsetType, _about("of the daemon: latencies, subscribers, sensors")] = UNSET


class ModelInfo(Struct, frozen=True, kw_only=True):
    """The model that runs."""

    id: Annotated[str, _about("what detections carry: its name and the beginning of its digest")]
    name: Annotated[str, _about("what its card calls it")]
    sha256: Annotated[
        str, _about("digest of the network: of its file, and of the weights beside it where there are any")
    ]
    task: Annotated[str, _about("what it is for: `detection`")]
    input_size: Annotated[tuple[int, int], _about("width and height of its input, in pixels")]
    labels: Annotated[list[str], _about("one per class, in the order of `class_id`")]


class InfoMessage(_Base, frozen=True, kw_only=True, tag="info"):
    """What the daemon is. Latched like `status`."""

    version: Annotated[str, _about("of edgeinfer")]
    host: Annotated[str, _about("the machine's name")]
    boot_id: Annotated[str, _about("new at every boot; CLOCK_MONOTONIC is comparable within one")]
    pid: Annotated[int, _about("the daemon's process")]
    t_start_ns: Annotated[int, _about("when it started, CLOCK_REALTIME")]
    model: Annotated[ModelInfo, _about("the model that runs")]
    backend: Annotated[str | None, _about("what runs it; null until it is loaded")]
    versions: Annotated[dict[str, str], _about("library → version")]
    sources: Annotated[list[str], _about("the names of the sources that the run has now")]


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
    schema: dict[str, Any] = _settled(msgspec.json.schema(KINDS[kind]))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"


def _settled(part: Any) -> Any:
    """A part of a schema as every Python and every msgspec gives it: indentation and order differ between them."""
    if isinstance(part, dict):
        whole = {key: _settled(value) for key, value in part.items()}
        return {key: sorted(value, key=str) if key == "anyOf" else value for key, value in whole.items()}
    if isinstance(part, list):
        return [_settled(item) for item in part]
    return inspect.cleandoc(part) if isinstance(part, str) else part
