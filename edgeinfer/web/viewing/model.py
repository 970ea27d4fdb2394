"""The model that runs, and what is known of its engine: what a card, a manifest and the cache say, in one answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from edgeinfer.config.card import Model, to_yaml
from edgeinfer.engine.build.advice import about
from edgeinfer.engine.build.verify import describe
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.strikes import MAX_STRIKES, crashing
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.redaction import redact
from edgeinfer.telemetry.snapshot import DaemonSnapshot


class Engine(Struct, frozen=True, kw_only=True):
    """The TensorRT engine that serves. `explain` says in words what it is, and what the next start will do."""

    key: str
    manifest: dict[str, Any] | None
    verification: dict[str, Any] | None
    explain: list[str]


class ModelView(Struct, frozen=True, kw_only=True):
    """The model that runs, or will run first. `notes`: why it runs as it does, where there is something to say."""

    id: str
    name: str
    task: str
    input_size: tuple[int, int]
    labels: list[str]
    card: dict[str, Any]
    backend: str
    detail: str
    engine: Engine | None
    notes: list[str] = []


def model_view(model: Model, seen: DaemonSnapshot, cache: Path) -> ModelView:
    """Reads the engine's manifest in the cache, if one serves."""
    card = model.card
    return ModelView(
        id=model.id,
        name=card.name,
        task=card.task,
        input_size=(card.input.width, card.input.height),
        labels=card.labels,
        card=to_yaml(card),
        backend=seen.backend,
        detail=seen.detail,
        engine=_engine(seen.engine_key, cache) if seen.engine_key else None,
        notes=[reason.text for reason in (seen.unused, seen.shortage) if reason is not None],
    )


def _engine(key: str, root: Path) -> Engine:
    found: CachedEngine | None = None
    with suppress(EdgeinferError, OSError):
        found = Cache(root, writing=False).get(key)
    if found is None:
        text = f"engine {key[:12]} is not in the cache: the next start builds one"
        return Engine(key=key, manifest=None, verification=None, explain=[text])
    manifest: dict[str, Any] = msgspec.to_builtins(found.manifest)
    del manifest["build"]["log"]  # TensorRT's own words, for `edgeinfer engines show`
    verification = manifest.pop("verification")
    return Engine(key=key, manifest=manifest, verification=verification, explain=list(map(redact, _words(found))))


def _words(engine: CachedEngine) -> Iterator[str]:
    record, strikes = engine.manifest, engine.strikes
    yield f"engine {engine.key[:12]} of {record.model_name}: {about(record.build)}, in {record.build.seconds:.0f} s"
    yield describe(record.verification)
    yield from record.build.warnings
    if strikes >= MAX_STRIKES:
        yield f"the next start builds another one, as {crashing(engine.key, strikes)}"
    else:
        yield "the next start uses it again, unless something that it was made for is another by then"
