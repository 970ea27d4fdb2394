"""The name of an engine: SHA-256 over everything that makes it fit here, or not.

The fields are kept readable beside the engine, so that two of them can be compared and the difference told.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from edgeinfer.engine.options import BuildOptions, Profile, profiles, single_profiles
from edgeinfer.engine.store.plan import Version
from edgeinfer.models.onnxfile import OnnxModel, file_digest

SCHEMA = 2
"""1 had the CUDA runtime's version in the key, which comes with a Python package and says nothing of an engine."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine and its TensorRT are, as far as an engine depends on it. None: not known, or not there.

    flavour: tensorrt or tensorrt_rtx. tensorrt: all four parts. cuda: version of the CUDA runtime, for people only.
    compute_capability: like "8.7". l4t: like "36.4.3", None off a Jetson.
    """

    flavour: str
    tensorrt: Version
    cuda: str | None = None
    compute_capability: str | None = None
    gpu: str | None = None
    sm_count: int | None = None
    integrated: bool | None = None
    os: str = "linux"
    arch: str = ""
    l4t: str | None = None


class KeyFields(msgspec.Struct, frozen=True, kw_only=True):
    """Every field of the key, readable. Two engines fit the same place if and only if these are equal, `cuda` apart.

    profiles: of the engine's first optimization profile. single: of its second, empty where it has but one.
    """

    schema: int
    model: str
    external_data: tuple[tuple[str, str], ...]
    flavour: str
    tensorrt: Version
    cuda: str | None
    compute_capability: str | None
    gpu: str | None
    sm_count: int | None
    integrated: bool | None
    os: str
    arch: str
    l4t: str | None
    dla_core: int | None
    precision: str
    profiles: dict[str, Profile]
    flags: dict[str, bool]
    settings: dict[str, Any]
    calibration: str | None
    plugins: tuple[tuple[str, str], ...]
    single: dict[str, Profile] = {}


FLAG_OPTIONS = ("gpu_fallback", "sparsity", "refit", "version_compatible", "exclude_lean_runtime")
OWN_FIELDS = {"precision", "dla_core", "batch", "shapes", "single", "plugins", "calibrator", *FLAG_OPTIONS}


def key_fields(model: OnnxModel, options: BuildOptions, machine: Target, calibration: str | None = None) -> KeyFields:
    """The fields of the engine that `options` would give here. `calibration`: digest of the data and its method.

    Raises UsageError where the shapes don't fit the model and InputError where a plugin can't be read.
    """
    asked, free = msgspec.structs.asdict(options), profiles(model, options)
    return KeyFields(
        schema=SCHEMA,
        model=model.digest,
        external_data=model.external,
        **msgspec.structs.asdict(machine),
        dla_core=options.dla_core,
        precision=options.precision,
        profiles=free,
        flags={name: asked[name] for name in FLAG_OPTIONS},
        settings={name: value for name, value in asked.items() if name not in OWN_FIELDS},
        calibration=calibration,
        plugins=tuple((Path(path).name, file_digest(Path(path))) for path in options.plugins),
        single=single_profiles(options, free),
    )


def engine_key(fields: KeyFields) -> str:
    """SHA-256 of the fields, as 64 hex digits. The same fields give the same key on every machine and Python.

    An older schema's is made as it was then, and so is that of an engine with one profile, which all had once.
    """
    counted = msgspec.structs.asdict(fields)
    if not fields.single:
        del counted["single"]
    if fields.schema >= 2:
        del counted["cuda"]
    return hashlib.sha256(msgspec.json.encode(counted, order="sorted")).hexdigest()


def renewed(fields: KeyFields) -> KeyFields:
    """The fields as they would be written today, where what changed since is no difference between two engines."""
    return msgspec.structs.replace(fields, schema=SCHEMA) if fields.schema == 1 else fields
