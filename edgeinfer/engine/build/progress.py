"""How far a build is: one number from TensorRT's nested phases, or from the clock where it tells nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """A moment of a build. `fraction`: 0 to 1, None where nothing is known; it never goes back within a build.

    estimate_s: how long the last build of the same model took, in seconds, None for the first.
    reason: why there is a build at all; "" while it is not known yet.
    """

    phase: str
    fraction: float | None
    elapsed_s: float
    estimate_s: float | None = None
    reason: str = ""


OnProgress = Callable[[BuildProgress], None]


def by_clock(elapsed_s: float, estimate_s: float | None) -> float | None:
    """The fraction where TensorRT reports none: of the last build's time, and never quite done."""
    return min(elapsed_s / estimate_s, 0.99) if estimate_s else None


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """Adds up nested phases. Called from several of TensorRT's threads at once."""

    def __init__(self, report: Callable[[str, float], None]) -> None:
        """`report` gets the newest phase's name and the fraction of the whole, 0 to 1, each time that grows by 1 %."""
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._best = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))
        self._tell(name)

    def step(self, name: str) -> None:
        """A step of the phase is done."""
        with self._lock:
            if phase := self._phases.get(name):
                phase.done = min(phase.done + 1, phase.steps)
        self._tell(name)

    def finish(self, name: str) -> None:
        """The phase is done."""
        with self._lock:
            self._phases.pop(name, None)

    def _tell(self, name: str) -> None:
        with self._lock:
            fraction = max(
                (self._fraction(root) for root, phase in self._phases.items() if phase.parent is None), default=0.0
            )
            if fraction < self._best + 0.01:
                return
            self._best = fraction
        self._report(name, fraction)

    def _fraction(self, name: str, depth: int = 16) -> float:
        phase = self._phases[name]
        inner = [self._fraction(n, depth - 1) for n, p in self._phases.items() if p.parent == name and depth]
        return min((phase.done + max(inner, default=0.0)) / phase.steps, 1.0)


def make_monitor(trt: Any, tree: PhaseTree) -> Any | None:
    """TensorRT's progress monitor feeding `tree`; None where this version has no such thing."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a base class known only at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tree.step(phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            tree.finish(phase_name)

    return Monitor()
