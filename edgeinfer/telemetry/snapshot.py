"""A source as it is at one instant, and the sum over sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeinfer.messages import Reason, State

_COUNTS = ("captured", "inferred", "in_flight", "stalls", "reconnects")


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """A source's state and counters at one instant. stalls: how often it went quiet; reconnects: was opened again."""

    state: State
    reason: Reason | None
    captured: int
    inferred: int
    in_flight: int
    dropped: dict[str, int]
    fps: float
    stalls: int = 0
    reconnects: int = 0


def total(state: State, reason: Reason | None, books: Sequence[SourceSnapshot]) -> SourceSnapshot:
    """The sum over sources, as a snapshot of the daemon."""
    dropped: Counter[str] = Counter()
    for book in books:
        dropped.update(book.dropped)
    counts = {name: sum(getattr(book, name) for book in books) for name in _COUNTS}
    return SourceSnapshot(state, reason, dropped=dict(dropped), fps=sum(book.fps for book in books), **counts)
