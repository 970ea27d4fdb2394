"""A source and the daemon as they are at one instant. Whoever shows them, shows these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeinfer.messages import MachineVitals, Reason, State

_COUNTS = ("captured", "inferred", "in_flight", "stalls", "reconnects")


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """A source's state and counters at one instant. stalls: how often it went quiet; reconnects: was opened again.

    decoder: what decodes its video, and why that; None where nobody has said.
    """

    state: State
    reason: Reason | None
    captured: int
    inferred: int
    in_flight: int
    dropped: dict[str, int]
    fps: float
    stalls: int = 0
    reconnects: int = 0
    decoder: tuple[str, str] | None = None


def total(state: State, reason: Reason | None, books: Sequence[SourceSnapshot]) -> SourceSnapshot:
    """The sum over sources, as if the daemon were one."""
    dropped: Counter[str] = Counter()
    for book in books:
        dropped.update(book.dropped)
    counts = {name: sum(getattr(book, name) for book in books) for name in _COUNTS}
    return SourceSnapshot(state, reason, dropped=dict(dropped), fps=sum(book.fps for book in books), **counts)


@dataclass(frozen=True, slots=True)
class SinkSnapshot:
    """trouble: why a sink loses what it is given now, in words, empty while it doesn't. lost: messages, so far."""

    trouble: str = ""
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSnapshot:
    """The one picture of a daemon: systemd, /healthz, /metrics, its own `status`, the terminal and the summary show it.

    model: its id. backend: what runs it, empty until something does; detail: how; versions: library → version.
    engine_key: of the TensorRT engine that serves, empty where none does.
    serving_s: for how long the sources have been running, None while they are not.
    latency_ms: stage → p50, p95, p99 of the last frames. rate: the share of live sources' frames that is used.
    subscribers: connected and listening, None where nothing is published over ZeroMQ.
    bound: whether what is to be published is. sinks: all of them, by name.
    faults: why the process can't go on, empty while it can. news, unused, shortage: see `Bulletin`.
    """

    model: str
    backend: str = ""
    detail: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    engine_key: str = ""
    serving_s: float | None = None
    sources: Mapping[str, SourceSnapshot] = field(default_factory=dict)
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rate: float = 1.0
    subscribers: int | None = None
    machine: MachineVitals | None = None
    bound: bool = True
    sinks: Mapping[str, SinkSnapshot] = field(default_factory=dict)
    faults: tuple[Reason, ...] = ()
    news: Reason | None = None
    unused: Reason | None = None
    shortage: Reason | None = None

    @property
    def total(self) -> SourceSnapshot:
        """The sum over the sources of now."""
        return total("running" if self.backend else "starting", self.news, list(self.sources.values()))
