"""Two configurations → what has to be done to get from one to the other. Pure: nothing is opened or stopped here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from edgeinfer.config.settings import Config, ModelConfig, SourceConfig, writes_to_stdout
from edgeinfer.errors import ConfigError

THRESHOLDS = {"score": None, "iou": None}
SOURCE_LIVE_KEYS = {"max_fps": None}
"""Settings of a source that it takes up while it runs; any other needs it to be opened again."""
INLINE = ("options", "fallback", "ladder")
"""Fields whose keys stand beside the general ones in the file."""
HANDLED = ("model", "backend", "sources", "sinks", "frames", "batching", "path")
RESTART = "restart the daemon to apply it"
CUT_OFF = "can't be changed while the daemon runs: its subscribers would be cut off"


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """What a reload does.

    `build`: the model or what runs it is another, so a backend must be built; `decoder`: only thresholds are.
    `restart` names sources to open anew. A sink in both `close_sinks` and `open_sinks` is opened anew. `changes` tells
    a person, a line each, without values: those may hold credentials.
    """

    build: bool
    decoder: bool
    restart: frozenset[str]
    close_sinks: tuple[str, ...]
    open_sinks: tuple[str, ...]
    changes: tuple[str, ...]


def plan_reload(old: Config, new: Config, same_model: bool = True, failed: Collection[str] = ()) -> ReloadPlan:
    """How to get from `old` to `new`.

    `same_model`: whether the model's files are what they were. Sinks in `failed` have been given up and are opened
    again.

    Raises ConfigError for what can't be changed while the daemon runs; nothing of the reload is done then.
    """
    _refuse(old, new)
    build = not same_model or _model_but_thresholds(old.model) != _model_but_thresholds(new.model)
    restart = frozenset(
        name
        for name in old.sources.keys() & new.sources.keys()
        if _source_but_live_keys(old.sources[name]) != _source_but_live_keys(new.sources[name])
    )
    again = [name for name in new.sinks if name in failed and old.sinks.get(name) == new.sinks[name]]
    differing = [name for name in {**old.sinks, **new.sinks} if old.sinks.get(name) != new.sinks.get(name)] + again
    return ReloadPlan(
        build=build or old.backend != new.backend,
        decoder=old.model != new.model,
        restart=restart,
        close_sinks=tuple(name for name in differing if name in old.sinks),
        open_sinks=tuple(name for name in differing if name in new.sinks),
        changes=(*_changes(old, new, same_model, restart), *(f"{name}: opened again" for name in again)),
    )


def changed_keys(old: Any, new: Any) -> list[str]:
    """The keys, as they stand in the file, at which two tables of settings differ."""
    if type(old) is not type(new):
        return ["uri"] if isinstance(old, SourceConfig) else ["name"]
    found: list[str] = []
    for field in msgspec.structs.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if field.name in INLINE:
            if type(before) is type(after):
                found += [key for key in changed_keys(before, after) if key not in found]
        else:
            found.append(field.encode_name)
    return found


def _refuse(old: Config, new: Config) -> None:
    if not new.sources:
        raise ConfigError("no sources", "stop the daemon instead")
    before, after = old.sinks.get("publish"), new.sinks.get("publish")
    if before != after:
        keys = f".{', '.join(changed_keys(before, after))}" if before is not None and after is not None else ""
        raise ConfigError(f"publish{keys}: {CUT_OFF}", RESTART)
    for name, sink in old.sinks.items():
        other = new.sinks.get(name)
        if other is not None and other != sink and "zmq" in (sink.name, other.name):
            raise ConfigError(f"{name}: {CUT_OFF}", RESTART)
    if writes_to_stdout(old) != writes_to_stdout(new):
        raise ConfigError("sinks: what goes to standard output can't be changed while the daemon runs", RESTART)
    for field in msgspec.structs.fields(Config):
        if field.name not in HANDLED and getattr(old, field.name) != getattr(new, field.name):
            raise ConfigError(f"{field.encode_name}: can't be changed while the daemon runs", RESTART)


def _model_but_thresholds(model: ModelConfig) -> ModelConfig:
    return msgspec.structs.replace(model, **THRESHOLDS)


def _source_but_live_keys(source: SourceConfig) -> SourceConfig:
    return msgspec.structs.replace(source, **SOURCE_LIVE_KEYS)


def _changes(old: Config, new: Config, same_model: bool, restart: frozenset[str]) -> Iterator[str]:
    for path, before, after in (("model", old.model, new.model), ("backend", old.backend, new.backend)):
        if before != after:
            yield f"{path}: {', '.join(changed_keys(before, after))} changed"
    if not same_model and old.model.path == new.model.path:
        yield "model: its files changed"
    yield from _table_changes("sources.", old.sources, new.sources, restart)
    yield from _table_changes("", old.sinks, new.sinks, frozenset())
    for field in ("frames", "batching"):
        if getattr(old, field) != getattr(new, field):
            yield f"{field}: changed"


def _table_changes(
    prefix: str, old: Mapping[str, Struct], new: Mapping[str, Struct], restart: frozenset[str]
) -> Iterator[str]:
    for name in new:
        if name not in old:
            yield f"{prefix}{name}: added"
        elif old[name] != new[name]:
            again = "; opened again" if name in restart else ""
            yield f"{prefix}{name}: {', '.join(changed_keys(old[name], new[name]))} changed{again}"
    for name in old:
        if name not in new:
            yield f"{prefix}{name}: removed"
