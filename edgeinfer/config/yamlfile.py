"""YAML files, read safely: no objects, no duplicate keys, no endless input."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgeinfer.errors import ConfigError, InputError

MAX_BYTES = 256 << 10


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where the plain one would forget the first, and half characters."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        try:
            if isinstance(value, str) and not value.isascii():
                value = value.encode("utf-16", "surrogatepass").decode(
                    "utf-16"
                )  # two escapes of JSON may be one character
        except UnicodeDecodeError:
            raise yaml.constructor.ConstructorError(None, None, "half a character", node.start_mark) from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue  # a list or a mapping is no key, which the base class says with its line
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """The file's data. Raises InputError where it can't be read and ConfigError where it is not YAML."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 10} KiB", "is this the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Any:
    """The data in a YAML text; `name` says in errors where it came from. Raises ConfigError."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (derived from SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
