"""Small true-to-life values for tests: a machine, a model file, a manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.key import KeyFields, Target, engine_key, key_fields
from edgeinfer.engine.store.manifest import BuildRecord, Manifest, Verification
from edgeinfer.models.onnxfile import OnnxModel, Tensor

NANODET = Path(__file__).parents[2] / "edgeinfer/models/nanodet-g-416.onnx"

ORIN = Target(
    flavour="tensorrt",
    tensorrt=(10, 3, 0, 30),
    cuda="12.6",
    compute_capability="8.7",
    gpu="Orin",
    sm_count=8,
    integrated=True,
    os="linux",
    arch="aarch64",
    l4t="36.4.3",
)


def model(digest: str = "11" * 32, path: Path = Path("m.onnx"), shape: tuple[int, ...] = (-1, 3, 8, 8)) -> OnnxModel:
    """A model with one input of a free batch and one output."""
    return OnnxModel(
        path, digest, (), (Tensor("x", shape, "float32"),), (Tensor("y", (-1, 2), "float32"),), (), 17, frozenset()
    )


def fields(**changes: object) -> KeyFields:
    """Key fields of `model` on `ORIN`."""
    return msgspec.structs.replace(key_fields(model(), BuildOptions(), ORIN), **changes)


def manifest(plan: bytes, key_fields: KeyFields | None = None) -> Manifest:
    """The manifest of `plan`."""
    made = key_fields or fields()
    build = BuildRecord(
        seconds=12.5, finished_at="2026-01-02T03:04:05Z", precision="fp16", how="builder flag FP16", edgeinfer="1"
    )
    return Manifest(
        key=engine_key(made),
        model_name="m.onnx",
        fields=made,
        plan_bytes=len(plan),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        build=build,
        verification=Verification(state="skipped", reason="no GPU"),
    )
