"""Plain data (from YAML) → typed Structs, with errors an operator can act on.

msgspec checks the values; this module walks the structure, because msgspec names neither the key of a mapping nor
the nearest known name in its errors. Each error is one line: the key's path, the value, what is allowed.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from edgeinfer.errors import ConfigError
from edgeinfer.guard.credentials import is_secret_key
from edgeinfer.guard.redaction import GONE, redact, redact_value

T = TypeVar("T")

MAX_SHOWN = 60
"""Of a value, in characters."""


def convert(value: Any, target: type[T], path: str = "") -> T:
    """`value` as `target`, strictly: no unknown keys, no silent conversion between types.

    Raises ConfigError with the path of the first bad key.
    """
    return typing.cast("T", _convert(value, target, path))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: "did you mean …?" where a known name is near, else the known names, empty where there are none."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1)
    if match:
        return f"did you mean {match[0]}?"
    return f"one of: {', '.join(known)}" if known else ""


def shown(path: str, value: Any) -> str:
    """`value` as errors show it: short, without credentials, and of a list or keys only that it is one.

    Credentials go before the text is cut, or a half of one would stay.
    """
    if is_secret_key(path.rpartition(".")[2]):
        return GONE
    if isinstance(value, dict):
        return "a mapping" if value else "{}"
    if isinstance(value, list | tuple | set) and not all(isinstance(item, float) for item in value):
        return "a list"
    try:
        return _cut(repr(redact_value(value)) if isinstance(value, str) else redact(repr(value)))
    except ValueError:  # a number of more digits than Python writes
        return "a number"


def _cut(text: str) -> str:
    half = MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[: half - 2]}...{text[1 - half :]}"


def field_names(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The keys that a struct accepts."""
    return tuple(field.encode_name for field in msgspec.structs.fields(struct))


def _convert(value: Any, target: Any, path: str) -> Any:
    struct = _only_struct(target, value)
    if struct is not None:
        return _convert_struct(value, struct, path)
    if typing.get_origin(target) is dict and isinstance(value, dict):
        return _convert_dict(value, target, path)
    return _convert_leaf(value, target, path)


def _convert_struct(value: Any, struct: type[msgspec.Struct], path: str) -> Any:
    if not isinstance(value, dict):
        expected = f"{shown(path, value)} is not allowed: expected keys with values"
        raise _refused(path, expected, f"one of: {', '.join(field_names(struct))}")
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for key in value:
        if key not in fields:
            raise ConfigError.at(_join(path, key), "unknown key", nearest(str(key), fields), of_name=True)
    for name, field in fields.items():
        if field.required and name not in value:
            raise ConfigError.at(_join(path, name), "missing, and there is no default")
    return struct(
        **{fields[key].name: _convert(item, fields[key].type, _join(path, key)) for key, item in value.items()}
    )


def _convert_dict(value: dict[Any, Any], target: Any, path: str) -> dict[Any, Any]:
    key_type, item_type = typing.get_args(target)
    return {
        _convert_leaf(key, key_type, _join(path, key), of_name=True): _convert(item, item_type, _join(path, key))
        for key, item in value.items()
    }


def _convert_leaf(value: Any, target: Any, path: str, of_name: bool = False) -> Any:
    try:
        return msgspec.convert(value, target)
    except msgspec.ValidationError as error:
        reason = f"{shown(path, value)} is not allowed: {_reason(error, target)}"
        raise _refused(path, reason, of_name=of_name) from None


def _refused(path: str, text: str, hint: str = "", of_name: bool = False) -> ConfigError:
    return ConfigError.at(path, text if path else f"config: {text}", hint, of_name)


def _only_struct(target: Any, value: Any) -> type[msgspec.Struct] | None:
    """The struct in `target` (itself, or the one of a union with scalars, where the value is a mapping)."""
    if isinstance(target, type) and issubclass(target, msgspec.Struct):
        return target
    if typing.get_origin(target) in (typing.Union, types.UnionType) and isinstance(value, dict):
        for choice in typing.get_args(target):
            if isinstance(choice, type) and issubclass(choice, msgspec.Struct):
                return choice
    return None


def _join(path: str, key: object) -> str:
    name = str(key)
    return f"{path}.{name}" if path else name


def _reason(error: msgspec.ValidationError, target: Any) -> str:
    """What msgspec says, but for the value: that is shown already, or is not to be."""
    said = str(error)
    return f"expected one of {', '.join(_choices(target))}" if said.startswith("Invalid enum") else _lower_first(said)


def _choices(target: Any) -> list[str]:
    inner = typing.get_args(target)
    if typing.get_origin(target) is typing.Literal:
        return [repr(choice) for choice in inner]
    return [text for choice in inner for text in _choices(choice)]


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
