"""Whether the daemon is alive and whether it is ready, with reasons; what /healthz and /readyz say.

Alive: the process can go on. Not alive means: start it again. Ready: it does what it is there for.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeinfer.messages import Reason
from edgeinfer.telemetry.snapshot import DaemonSnapshot


@dataclass(frozen=True, slots=True)
class Health:
    """Yes, or no with the reasons."""

    ok: bool
    reasons: tuple[Reason, ...]


def alive(seen: DaemonSnapshot) -> Health:
    """Whether the main loop turns and no stage has died."""
    return Health(not seen.faults, seen.faults)


def ready(seen: DaemonSnapshot, min_sources: int) -> Health:
    """Whether it is alive, the model is loaded and has room, the socket is bound, no sink loses anything, and enough
    sources run.

    A source that has come to its end as it should, a file's, counts as one that runs. `min_sources` above the number
    of sources means all of them.
    """
    reasons = list(seen.faults)
    if not seen.backend:
        reasons.append(Reason("model", "the model is not loaded yet"))
    if seen.shortage is not None:
        reasons.append(seen.shortage)
    if not seen.bound:
        reasons.append(Reason("socket", "nothing is published"))
    for name, sink in seen.sinks.items():
        if sink.trouble and name != "publish":
            reasons.append(Reason("sink", f"{name}: {sink.trouble}"))
    running = [name for name, books in seen.sources.items() if books.state in ("running", "ended")]
    wanted = min(min_sources, len(seen.sources))
    if len(running) < wanted:
        reasons.append(Reason("sources", f"{len(running)} of {len(seen.sources)} sources run, {wanted} must"))
    return Health(not reasons, tuple(reasons))
