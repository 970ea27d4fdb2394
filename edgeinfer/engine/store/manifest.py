"""What is known about a built engine, as JSON beside its plan. Fields are only ever added."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.store.key import KeyFields, engine_key

SCHEMA = 1


class OutputError(msgspec.Struct, frozen=True):
    """How far one output is from ONNX Runtime's, in the output's own unit. `scale`: largest reference value."""

    max_error: float
    mean_error: float
    scale: float


class Tolerance(msgspec.Struct, frozen=True):
    """The largest errors that are let pass, as parts of `OutputError.scale`."""

    max_error: float
    mean_error: float


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison with ONNX Runtime.

    state: passed; exceeded (beyond the tolerance, and kept because the caller said so); skipped (see `reason`).
    samples: number of inputs compared. latency_ms: median time of one inference of the usual shape, copies included.
    """

    state: Literal["passed", "exceeded", "skipped"]
    reason: str = ""
    samples: int = 0
    inputs: str = ""
    outputs: dict[str, OutputError] = {}
    tolerance: Tolerance | None = None
    latency_ms: float | None = None


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the build went. `how`: by which means the precision came about. `peak_rss_bytes`: of the child process."""

    seconds: float
    finished_at: str
    precision: str
    how: str
    edgeinfer: str
    peak_rss_bytes: int = 0
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    candidates: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The side-car of a plan. `plan_bytes` and `plan_sha256` are of the plan file."""

    schema: int = SCHEMA
    key: str
    model_name: str
    fields: KeyFields
    plan_bytes: int
    plan_sha256: str
    build: BuildRecord
    verification: Verification


def encode(manifest: Manifest) -> bytes:
    """As indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, name: str) -> Manifest:
    """The manifest in `data`. Raises PlanError where it is damaged, newer, or its key doesn't fit."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{name}: damaged ({error})", "build the engine again") from error
    if manifest.schema != SCHEMA:
        raise PlanError(f"{name}: written in schema {manifest.schema}, known is {SCHEMA}", "build the engine again")
    if manifest.key != engine_key(manifest.fields):
        raise PlanError(f"{name}: its key does not belong to its fields", "build the engine again")
    return manifest
