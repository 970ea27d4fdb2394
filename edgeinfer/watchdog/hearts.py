"""Is every stage alive? Monotonic heartbeats, and the one rule that judges them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SLOWEST_FRAMES = 10
"""A stage may take so many times the 99th percentile of inference: slow is not stuck."""


class Heart:
    """The heartbeat of a stage. The stage beats from its own thread; anybody may look."""

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic, patience: float = 1.0) -> None:
        """`patience` multiplies the deadline for a stage that may take longer."""
        self.stage = stage
        self.patience = patience
        self._clock = clock
        self._due: float | None = clock()

    def beat(self, allowance_s: float = 0.0) -> None:
        """The stage is alive. `allowance_s`: what it does now may take so much longer than usual."""
        if self._due is not None:
            self._due = self._clock() + allowance_s

    def rest(self) -> None:
        """The stage has come to its end; nothing is expected of it any more, whatever still beats."""
        self._due = None

    def forgive(self, seconds: float) -> None:
        """The whole process stood still for so long; that is not the stage's fault."""
        if self._due is not None:
            self._due += seconds

    def silent_s(self) -> float:
        """Seconds since the last beat, less what was allowed for; 0 at rest."""
        due = self._due
        return 0.0 if due is None else self._clock() - due


@dataclass(frozen=True, slots=True)
class Stall:
    """A stage that has not beaten within its deadline, both in seconds."""

    stage: str
    silent_s: float
    deadline_s: float

    def __str__(self) -> str:
        return f"stage {self.stage} has not moved for {self.silent_s:.1f} s; its deadline is {self.deadline_s:.1f} s"


def deadline_s(least_s: float, p99_ms: float) -> float:
    """How long a stage may be silent: `least_s`, more where inference itself takes long."""
    return max(least_s, SLOWEST_FRAMES * p99_ms / 1e3)


def find_stall(hearts: Iterable[Heart], limit_s: float) -> Stall | None:
    """The stage that has been silent for longest, if that is too long."""
    stalls = [
        Stall(heart.stage, silent, limit_s * heart.patience)
        for heart in hearts
        if (silent := heart.silent_s()) > limit_s * heart.patience
    ]
    return max(stalls, key=lambda stall: stall.silent_s, default=None)
