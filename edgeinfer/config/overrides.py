"""Single settings from the command line, `key.path=value`, and their place in the data of a configuration."""

from __future__ import annotations

from typing import Any

from edgeinfer.config import strict
from edgeinfer.config.yamlfile import parse_yaml
from edgeinfer.errors import ConfigError
from edgeinfer.guard.redaction import remember_setting, remember_text

_SHORT_FORMS = {"model": "path", "backend": "name", "batching": "mode"}


def parse_override(text: str) -> tuple[str, Any]:
    """`key.path=value` with the value in YAML. Raises ConfigError."""
    key, separator, value = text.partition("=")
    remember_setting(key, value)
    remember_text(value)
    if not separator or not all(key.split(".")):
        raise ConfigError(
            f"--set {strict.shown('', text)}: expected key.path=value", "for instance --set publish.format=msgpack"
        )
    return key, parse_yaml(value, f"--set {key}")


def set_override(data: Any, key: str, value: Any) -> None:
    """Puts a value where its dotted key says, in plain data that is changed. Raises ConfigError below a plain value."""
    *parents, last = key.split(".")
    above: list[str] = []
    for parent in parents:
        if not isinstance(data, dict):
            break
        if data.get(parent) is None:
            data[parent] = {}
        below = data[parent]
        if isinstance(below, str):  # the short forms: `model: NAME`, `backend: NAME`, a source's URI
            below = data[parent] = {_SHORT_FORMS.get(parent, "uri"): below}
        data = below
        above.append(parent)
    if not isinstance(data, dict):
        error = ConfigError(f"--set {key}: there is nothing to set below a plain value")
        error.key = ".".join(above)  # which stands in the file
        raise error
    data[last] = value
