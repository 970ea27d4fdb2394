"""What the API answers with, as types: `openapi.json` is made of them too."""

from __future__ import annotations

from msgspec import Struct

from edgeinfer.messages import LastCrash, MachineVitals, Reason, SinkVitals, State, VideoDecoderInfo
from edgeinfer.web.site.views import Role
from edgeinfer.web.viewing.chronicle import Event
from edgeinfer.web.viewing.latched import SourceKind


class HttpStatus(Struct, frozen=True, kw_only=True):
    """The page itself: how many look, and how many pictures were made for them so far."""

    viewers: int
    pictures: int


class SourceStatus(Struct, frozen=True, kw_only=True):
    """A source as it is now."""

    state: State
    reason: Reason | None
    captured: int
    inferred: int
    in_flight: int
    dropped: int
    dropped_by_reason: dict[str, int]
    fps: float
    stalls: int
    reconnects: int
    decoder: VideoDecoderInfo | None
    kind: SourceKind | None


class DaemonStatus(Struct, frozen=True, kw_only=True):
    """The daemon as a whole, as it is now."""

    state: State
    reason: Reason | None
    model: str
    backend: str
    detail: str
    engine_key: str
    versions: dict[str, str]
    serving_s: float | None
    rate: float
    latency_ms: dict[str, dict[str, float]]
    subscribers: int | None
    machine: MachineVitals | None
    sinks: dict[str, SinkVitals]
    fps: float
    captured: int
    inferred: int
    dropped: int
    dropped_by_reason: dict[str, int]
    http: HttpStatus


class Status(Struct, frozen=True, kw_only=True):
    """`GET /api/v1/status`."""

    daemon: DaemonStatus
    sources: dict[str, SourceStatus]
    session: str
    t_ns: int
    last_crash: LastCrash | None
    role: Role


class Events(Struct, frozen=True, kw_only=True):
    """`GET /api/v1/events`."""

    events: list[Event]


class ErrorText(Struct, frozen=True, kw_only=True):
    """`code` is for programs, `text` for people, `hint` says how to mend it; it may be empty."""

    code: str
    text: str
    hint: str


class Error(Struct, frozen=True, kw_only=True):
    """What every answer that is none holds."""

    error: ErrorText


class CheckRequest(Struct, frozen=True, kw_only=True):
    """`POST /api/v1/config/check`: a configuration as it would stand in the file."""

    text: str


class ReloadRequest(Struct, frozen=True, kw_only=True):
    """`POST /api/v1/reload`: without `text` the file is read again; with it, it is written first.

    `digest` is that of the text that was changed, as `GET /api/v1/config` gave it: a file that holds another one now is
    not overwritten.
    """

    text: str | None = None
    digest: str | None = None


class LoginRequest(Struct, frozen=True, kw_only=True):
    """`POST /login`."""

    token: str
