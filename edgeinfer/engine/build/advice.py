"""Says whether the next start would reuse an engine or build one, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeinfer.engine.build.task import Task
from edgeinfer.engine.errors import PlanError, UnsafeError
from edgeinfer.engine.store.cache import MAX_STRIKES, Cache, CachedEngine
from edgeinfer.engine.store.explain import differences


@dataclass(frozen=True, slots=True)
class Advice:
    """What the next start would do. `reasons`: for a build, what stands against every engine there is."""

    action: Literal["reuse", "build", "refuse"]
    sentence: str
    reasons: tuple[str, ...] = ()


def advise(task: Task, cache: Cache) -> Advice:
    """What `ensure` would do for this task now. Changes nothing."""
    name = task.model.path.name
    try:
        engine = cache.get(task.key)
        if engine is not None:
            engine.read(mark=False)
    except PlanError as error:
        return _build(f"{name}: would be rebuilt, as its engine is damaged: {error.message}", error.message)
    except UnsafeError as error:
        return Advice("refuse", f"{name}: its engine would be refused: {error}", (error.message,))
    if engine is None:
        return _missing(task, cache)
    if engine.strikes >= MAX_STRIKES:
        reason = f"engine {task.key[:12]} ended its process {engine.strikes} times"
        return _build(f"{name}: would be rebuilt, as {reason}", reason)
    build = engine.manifest.build
    return Advice(
        "reuse",
        f"{name}: engine {task.key[:12]} would be reused ({build.precision}, built {build.finished_at}: {build.how})",
    )


def _missing(task: Task, cache: Cache) -> Advice:
    name = task.model.path.name
    if (cache.quarantined / task.key).exists():
        reason = f"engine {task.key[:12]} is in quarantine for ending its process"
        return _build(f"{name}: would be rebuilt, as {reason}", reason)
    engines = [item for item in cache.entries() if isinstance(item, CachedEngine)]
    same = [e for e in engines if e.manifest.fields.model == task.fields.model or e.manifest.model_name == name]
    if not same:
        return _build(f"{name}: would be built, as the cache holds no engine of it", "no engine of this model")
    changes, nearest = min(
        ((differences(e.manifest.fields, task.fields), e) for e in same), key=lambda pair: len(pair[0])
    )
    return _build(f"{name}: would be built, as engine {nearest.key[:12]} differs in {', '.join(changes)}", *changes)


def _build(sentence: str, *reasons: str) -> Advice:
    return Advice("build", sentence, reasons)
