"""`edgeinfer build --tune`: builds an engine for each usual batch, and keeps the one that is fastest."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeinfer.bench.memory import images
from edgeinfer.config.card import InputCard
from edgeinfer.engine.build.task import Task
from edgeinfer.engine.build.tuned import candidates
from edgeinfer.engine.errors import CacheError, UnsafeError
from edgeinfer.engine.store import tuning
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.types import Image

MEASURE_S = 1.0

Rates = Mapping[str, float]
Measure = Callable[[Task, CachedEngine, InputCard, Sequence[int], Sequence[Image], float], Rates]
"""Frames per second of an engine by "STREAMSxBATCH", for these batches."""

Build = Callable[[Task], CachedEngine]
"""The engine, from the cache or built now."""


def tune(
    task: Task,
    card: InputCard,
    batches: Sequence[int],
    cache: Cache,
    measure: Measure,
    build: Build,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[CachedEngine, bool]:
    """Builds and measures the candidates, remembers the best for all who build this model here, and removes the others.

    Returns it, and whether the cache had it. Best is the highest geometric mean over the `batches` that count; what
    the cache had before stays there. Raises what building and measuring raise.
    """
    found: dict[int, _Tried] = {}
    for candidate in candidates(task):
        opt, had = candidate.options.batch[1], cache.usable(candidate.key) is not None
        engine = build(candidate)
        rates = measure(candidate, engine, card, batches, images(), MEASURE_S)
        found[opt] = _Tried(engine, rates, had)
        tell(f"opt {opt}: {', '.join(f'{shape} {rate:.0f} fps' for shape, rate in rates.items())}")
    opt = max(found, key=lambda opt: statistics.geometric_mean(found[opt].rates.values()))
    best = found[opt]
    try:
        tuning.remember(cache, task.fields, tuning.Choice(opt, {str(opt): dict(t.rates) for opt, t in found.items()}))
    except (CacheError, UnsafeError) as error:
        tell(f"warning: the choice is not remembered, so that opt {opt} must be named: {error.message}")
    for other in found.values():
        if other.engine.key != best.engine.key and not other.had:
            cache.remove(other.engine.key)
    return best.engine, best.had


@dataclass(frozen=True, slots=True)
class _Tried:
    """An engine and how fast it is; whether the cache had one of its key."""

    engine: CachedEngine
    rates: Rates
    had: bool
