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


class DlaShare(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a network a DLA core takes.

    able: of its `layers`, those that the DLA said it takes before the build. parts: what they became in the engine,
    each run by the DLA in one go; 0 where the GPU runs everything, None where this TensorRT did not tell.
    """

    core: int
    able: int
    layers: int
    parts: int | None = None

    @property
    def used(self) -> bool:
        """Whether the DLA does anything, as far as is known."""
        return self.able > 0 and self.parts != 0

    def __str__(self) -> str:
        if not self.used:
            return f"none of {self.layers} layers on DLA core {self.core}: the GPU runs them all"
        parts = "" if self.parts is None else f", in {self.parts} part{'s' * (self.parts > 1)}"
        return f"{self.able} of {self.layers} layers on DLA core {self.core}{parts}"


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the build went. `how`: by which means the precision came about. `peak_rss_bytes`: of the child process.

    dla: None for an engine that was built for the GPU alone.
    """

    seconds: float
    finished_at: str
    precision: str
    how: str
    edgeinfer: str
    peak_rss_bytes: int = 0
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    candidates: dict[str, str] = {}
    dla: DlaShare | None = None


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
