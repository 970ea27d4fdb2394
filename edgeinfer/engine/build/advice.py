"""Says whether the next start would reuse an engine or build one, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeinfer.engine.build.task import Task
from edgeinfer.engine.errors import PlanError, UnsafeError
from edgeinfer.engine.store import strikes
from edgeinfer.engine.store.cache import Cache, CachedEngine, damaged
from edgeinfer.engine.store.explain import differences
from edgeinfer.engine.store.manifest import BuildRecord
from edgeinfer.engine.store.strikes import MAX_STRIKES, crashing


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
        return _build(f"{name}: would be rebuilt, as {damaged(error)}", error.message)
    except UnsafeError as error:
        return Advice("refuse", f"{name}: its engine would be refused: {error}", (error.message,))
    if engine is None:
        verb, reason, *phrases = _missing(task, cache)
        return _build(f"{name}: would be {verb}, as {reason}", *(phrases or (reason,)))
    if engine.strikes >= MAX_STRIKES:
        reason = crashing(task.key, engine.strikes)
        return _build(f"{name}: would be rebuilt, as {reason}", reason)
    return Advice("reuse", f"{name}: engine {engine.key[:12]} would be reused ({about(engine.manifest.build)})")


def about(build: BuildRecord) -> str:
    """What an engine is and how it came about, in a few words."""
    share = f"; {build.dla}" if build.dla else ""
    return f"{build.precision}, built {build.finished_at}: {build.how}{share}"


def reason_to_build(task: Task, cache: Cache) -> str:
    """Why `cache.usable` has no engine for this task, in words."""
    return cache.taken_out.get(task.key) or _missing(task, cache)[1]


def _missing(task: Task, cache: Cache) -> tuple[str, ...]:
    """Built or rebuilt; why, in words; and where it differs from the nearest engine, each difference by itself."""
    quarantined = cache.quarantined / task.key
    if quarantined.exists():
        crashes = strikes.count(quarantined)
        why = f"for ending its process {crashes} times" if crashes else "because TensorRT refused it"
        return "rebuilt", f"engine {task.key[:12]} is in quarantine {why}"
    engines = [item for item in cache.entries() if isinstance(item, CachedEngine)]
    name, model = task.model.path.name, task.fields.model
    same = [engine for engine in engines if model == engine.manifest.fields.model or name == engine.manifest.model_name]
    if not same:
        return "built", "the cache holds no engine of it"
    changes, nearest = min(
        ((differences(e.manifest.fields, task.fields), e) for e in same), key=lambda pair: len(pair[0])
    )
    return "built", f"engine {nearest.key[:12]} differs in {', '.join(changes)}", *changes


def _build(sentence: str, *reasons: str) -> Advice:
    return Advice("build", sentence, reasons)
