"""`edgeinfer build --tune`: builds an engine for each usual batch, and keeps the one that is fastest."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence

from edgeinfer.bench.memory import images
from edgeinfer.config.card import InputCard
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.progress import OnProgress
from edgeinfer.engine.build.task import Task
from edgeinfer.engine.build.tuned import candidates
from edgeinfer.engine.store import tuning
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.types import Image

MEASURE_S = 1.0

Rates = Mapping[str, float]
Measure = Callable[[Task, CachedEngine, InputCard, Sequence[int], Sequence[Image], float], Rates]
"""Frames per second of an engine by "STREAMSxBATCH", for these batches."""


def tune(
    task: Task,
    card: InputCard,
    batches: Sequence[int],
    cache: Cache,
    measure: Measure,
    on_progress: OnProgress,
    tell: Callable[[str], None] = lambda _: None,
) -> CachedEngine:
    """Builds and measures the candidates, remembers the best for all who build this model here, and removes the others.

    Best is the highest geometric mean over the `batches` that count. Raises what building and measuring raise.
    """
    found: dict[int, tuple[CachedEngine, Rates, bool]] = {}
    for candidate in candidates(task):
        opt, had = candidate.options.batch[1], cache.usable(candidate.key) is not None
        engine = ensure_task(candidate, cache, on_progress, threading.Event())
        rates = measure(candidate, engine, card, batches, images(), MEASURE_S)
        found[opt] = engine, rates, had
        tell(f"opt {opt}: {', '.join(f'{shape} {rate:.0f} fps' for shape, rate in rates.items())}")
    best = max(found, key=lambda opt: statistics.geometric_mean(found[opt][1].values()))
    fps = {str(opt): dict(rates) for opt, (_, rates, _) in found.items()}
    tuning.remember(cache, task.fields, tuning.Choice(best, fps))
    for opt, (engine, _, had) in found.items():
        if opt != best and not had:
            cache.remove(engine.key)
    return found[best][0]
