"""Says in words how two keys differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from edgeinfer.engine.options import format_shape
from edgeinfer.engine.store.key import KeyFields, renewed

LABELS = {
    "schema": "key schema",
    "model": "model file",
    "external_data": "external data",
    "flavour": "TensorRT flavour",
    "tensorrt": "TensorRT",
    "compute_capability": "compute capability",
    "gpu": "GPU",
    "sm_count": "number of SMs",
    "integrated": "integrated GPU",
    "os": "OS",
    "arch": "architecture",
    "l4t": "L4T",
    "dla_core": "DLA core",
    "calibration": "calibration data",
}
SHAPES = {"profiles": "shapes of {}", "single": "shapes of {} for single pictures"}


def differences(old: KeyFields, new: KeyFields) -> list[str]:
    """One phrase per field that differs, like "TensorRT 8.6.0.12 → 10.3.0.30"; empty for equal keys."""
    before, after = msgspec.structs.asdict(renewed(old)), msgspec.structs.asdict(renewed(new))
    names = [name for name in before if name != "cuda" and before[name] != after[name]]
    return [phrase for name in names for phrase in _phrases(name, before[name], after[name])]


def _phrases(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                label = SHAPES[name].format(key) if name in SHAPES else key.replace("_", " ")
                yield f"{label} {word(old.get(key))} → {word(new.get(key))}"
    else:
        yield f"{LABELS.get(name, name)} {word(old, name)} → {word(new, name)}"


def word(value: Any, name: str = "") -> str:
    """A field's value as people read it. `name`: of the field."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "tensorrt":
        return ".".join(map(str, value))
    if name in {"model", "calibration"}:
        return str(value)[:12]
    return _collection(value)


def _collection(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in sorted(value.items())) or "none"
    if not isinstance(value, (list, tuple)):
        return str(value)
    if value and isinstance(value[0], (list, tuple)):
        return ":".join(_pair(item) for item in value)
    return ",".join(map(str, value)) or "none"


def _pair(item: Any) -> str:
    """A shape, or a file's name with the beginning of its digest."""
    return f"{item[0]} {item[1][:12]}" if isinstance(item[0], str) else format_shape(item)
