"""What /metrics is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeinfer.flow.statistics import Histogram
from edgeinfer.messages import MachineVitals
from edgeinfer.telemetry.snapshot import SourceSnapshot


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything that is counted, at one instant.

    stages: stage → its times; latency: source → capture to publish. versions: library → version.
    """

    sources: Mapping[str, SourceSnapshot]
    stages: Mapping[str, Histogram]
    latency: Mapping[str, Histogram]
    model: str
    versions: Mapping[str, str]
    rate: float
    subscribers: int | None
    machine: MachineVitals | None
