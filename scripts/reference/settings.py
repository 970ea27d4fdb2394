"""docs/configuration.md: every key of the configuration, from the structs that read it."""

from __future__ import annotations

import msgspec

from edgeinfer.config import plugins
from edgeinfer.config.settings import (
    BatchingConfig,
    HttpConfig,
    ModelConfig,
    SourceSettings,
    WatchdogConfig,
    _File,
)
from reference.structs import docstring, settings_table, struct_type
from reference.tables import table

TOP_LEVEL = {
    "model": "a model's name, or the keys below",
    "backend": "`auto`, a backend's name, or `name` and the backend's own keys",
    "sources": "name → a URI, or `uri`, the general keys and those of the URI's source",
    "publish": "the keys of the sink `zmq`; `null` publishes nothing",
    "sinks": "a sink's name → its keys",
    "batching": "`latency`, `balanced` or `throughput`, or the keys below",
    "http": "health and metrics over HTTP: the keys below; without them there is none",
    "frames": "integer, ≥ 1: each source ends after so many results",
    "watchdog": "the keys below",
}

SECTIONS: dict[str, type[msgspec.Struct]] = {
    "`model`": ModelConfig,
    "`sources`, general keys": SourceSettings,
    "`batching`": BatchingConfig,
    "`watchdog`": WatchdogConfig,
    "`http`": HttpConfig,
}

KINDS: tuple[plugins.Kind, ...] = ("sources", "backends", "decoders", "sinks")


def top_level() -> str:
    """The keys at the top of the file."""
    names = [field.encode_name for field in struct_type(_File).fields]
    return table(("key", "value"), ((f"`{name}`", TOP_LEVEL[name]) for name in names))


def sections() -> str:
    """A section for each part of the configuration, and for each plugin that ships with edgeinfer."""
    found = dict(SECTIONS)
    for kind in KINDS:
        for name in plugins.names(kind):
            found[f"{kind[:-1].capitalize()} `{name}`"] = plugins.load(kind, name).Options
    parts = ([f"## {heading}", docstring(struct), settings_table(struct)] for heading, struct in found.items())
    return "\n\n".join("\n\n".join(part) for part in parts)
