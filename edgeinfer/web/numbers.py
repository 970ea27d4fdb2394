"""What /metrics is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeinfer.accounting import Snapshot
from edgeinfer.messages import Machine
from edgeinfer.statistics import Histogram


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything that is counted, at one instant.

    stages: stage → its times; latency: source → capture to publish. versions: library → version.
    """

    sources: Mapping[str, Snapshot]
    stages: Mapping[str, Histogram]
    latency: Mapping[str, Histogram]
    model: str
    versions: Mapping[str, str]
    rate: float
    subscribers: int | None
    machine: Machine | None
