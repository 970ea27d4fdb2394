"""Whether the daemon is alive and whether it is ready, with reasons; what /healthz, /readyz and others say.

Alive: the process can go on. Not alive means: start it again. Ready: it does what it is there for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeinfer.messages import Reason
from edgeinfer.telemetry.snapshot import SourceSnapshot

TICK_DEADLINE_S = 10.0
"""The main loop turns ten times a second; after so long without a turn it hangs."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The daemon at one instant.

    backend: what runs the model, empty until it is loaded. bound: whether the publisher's socket is; true where nothing
    is to be published. tick_age_s: since the main loop's last turn. faults: what ended a stage for good.
    """

    sources: Mapping[str, SourceSnapshot]
    backend: str
    bound: bool
    tick_age_s: float
    faults: Sequence[Reason] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """Yes, or no with the reasons."""

    ok: bool
    reasons: tuple[Reason, ...]


def alive(seen: Observation) -> Health:
    """Whether the supervisor turns and no stage has died."""
    reasons = list(seen.faults)
    if seen.tick_age_s > TICK_DEADLINE_S:
        reasons.append(Reason("supervisor", f"the main loop has not turned for {seen.tick_age_s:.0f} s"))
    return Health(not reasons, tuple(reasons))


def ready(seen: Observation, min_sources: int) -> Health:
    """Whether it is alive, the model is loaded, the socket bound, and enough sources run.

    A source that has come to its end as it should, a file's, counts as one that runs. `min_sources` above the number
    of sources means all of them.
    """
    reasons = list(alive(seen).reasons)
    if not seen.backend:
        reasons.append(Reason("model", "the model is not loaded yet"))
    if not seen.bound:
        reasons.append(Reason("socket", "nothing is published"))
    running = [name for name, books in seen.sources.items() if books.state in ("running", "ended")]
    wanted = min(min_sources, len(seen.sources))
    if len(running) < wanted:
        reasons.append(Reason("sources", f"{len(running)} of {len(seen.sources)} sources run, {wanted} must"))
    return Health(not reasons, tuple(reasons))
