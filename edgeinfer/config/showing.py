"""A configuration as those may see it who must not see its passwords: its text, and what is in force."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from edgeinfer.config.settings import Config, SourceConfig
from edgeinfer.config.yamlfile import parse_document
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.credentials import is_secret, is_secret_key
from edgeinfer.guard.printable import visible
from edgeinfer.guard.redaction import GONE, hidden_meanwhile, redact, redact_value

Span = tuple[int, int, str]
"""Where in a text something is replaced, and by what."""


def redacted_text(text: str, file: str) -> str | None:
    """A configuration's text without its passwords, however short; None where it can't be read as one."""
    with hidden_meanwhile(text.replace("#", " ")):  # a password that was put in a comment is one too
        try:
            root = parse_document(text, file).places.root
        except EdgeinferError:
            return None
        for start, end, instead in sorted(_spans(root), reverse=True):
            text = text[:start] + instead + text[end:]
        return visible(redact(text))


def effective(config: Config) -> dict[str, Any]:
    """All keys that are in force, as a file would have them, without passwords."""
    backend = {"name": config.backend.name, **(_plain(config.backend.fallback) if config.backend.fallback else {})}
    shown = {
        "model": _plain(config.model),
        "backend": {**backend, **_plain(config.backend.options)},
        "sources": {name: _source(source) for name, source in config.sources.items()},
        **{key: _plain(sink.options) for key, sink in config.sinks.items() if key == "publish"},
        "sinks": {sink.name: _plain(sink.options) for key, sink in config.sinks.items() if key != "publish"},
        "batching": _plain(config.batching),
        "http": None if config.http is None else _plain(config.http),
        "frames": config.frames,
        "watchdog": _plain(config.watchdog),
    }
    clean: dict[str, Any] = _clean("", shown)
    return clean


def visible_changes(old: Config, new: Config, changes: Iterable[str]) -> list[str]:
    """The changes that whoever may not see passwords sees: where only what is hidden differs, a word of it would tell
    who guesses that the guess was wrong.
    """
    before, after = effective(old)["sources"], effective(new)["sources"]
    told: list[str] = []
    for line in changes:
        name = line.removeprefix("sources.").partition(": ")[0]
        if not line.startswith("sources.") or name not in before or name not in after:
            told.append(line)
        elif keys := [key for key in after[name] if before[name].get(key, ...) != after[name][key]]:
            again = "; opened again" if keys != ["max_fps"] else ""
            told.append(f"sources.{name}: {', '.join(keys)} changed{again}")
    return told


def _source(source: SourceConfig) -> dict[str, Any]:
    isolation = {"isolated": source.isolation.isolated, "memory_mb": source.isolation.memory_mb}
    general = {"uri": source.uri.text, "max_fps": source.max_fps, **_plain(source.ladder), **isolation}
    return {**general, **_plain(source.options)}


def _plain(table: Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(table, str_keys=True, enc_hook=str)
    return plain


def _clean(key: str, value: Any) -> Any:
    """`key` is the nearest one above it that says that it is a secret."""
    if isinstance(value, dict):
        return {
            redact(name): _clean(key or (name if is_secret_key(name) else ""), item) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(key, item) for item in value]
    if value is not None and not isinstance(value, bool) and key and is_secret(key, str(value)):
        return GONE
    return redact_value(value) if isinstance(value, str) else value


def _spans(root: yaml.Node | None) -> Iterator[Span]:
    """What is to be replaced, each once."""
    waiting, seen = [("", root)], set[int]()
    while waiting:
        key, node = waiting.pop()
        if node is None or (id(node) in seen and not key):
            continue
        if isinstance(node, yaml.ScalarNode):
            if id(node) not in seen and (instead := _instead(key, node)):
                seen.add(id(node))
                yield node.start_mark.index, node.end_mark.index, instead
            continue
        seen.add(id(node))
        waiting += _below(key, node)


def _below(key: str, node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from ((key, item) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            secret = isinstance(name, yaml.ScalarNode) and is_secret_key(name.value)
            yield key or (name.value if secret else ""), value


def _instead(key: str, node: yaml.ScalarNode) -> str:
    """What a value is shown as; empty where that is as it stands."""
    value = node.value
    hidden = GONE if key and is_secret(key, value) else redact_value(value)
    if hidden == value:
        return ""
    mark = node.start_mark
    whole = (mark.buffer or "")[mark.pointer : mark.pointer + node.end_mark.index - mark.index]
    anchor = re.match(r"(&\S+\s+)?", whole)
    assert anchor is not None  # noqa: S101 (it matches nothing too)
    return f"{anchor[0]}{json.dumps(hidden)}" + ("\n" if whole.endswith("\n") else "")
