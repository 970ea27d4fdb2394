"""Every field of the key changes the key, and nothing else does; differences are told by name."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.explain import differences
from edgeinfer.engine.store.key import KeyFields, Target, engine_key, key_fields, renewed
from edgeinfer.errors import InputError
from tests.engine.samples import ORIN, fields, model

OTHER: dict[str, Any] = {
    "schema": 3,
    "model": "22" * 32,
    "external_data": (("w.bin", "33" * 32),),
    "flavour": "tensorrt_rtx",
    "tensorrt": (10, 3, 0, 31),
    "cuda": "12.5",
    "compute_capability": "8.6",
    "gpu": "Orin NX",
    "sm_count": 4,
    "integrated": False,
    "os": "qnx",
    "arch": "x86_64",
    "l4t": "36.4.4",
    "dla_core": 0,
    "precision": "int8",
    "profiles": {"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))},
    "flags": {"sparsity": True},
    "settings": {"optimization_level": 5},
    "calibration": "44" * 32,
    "plugins": (("p.so", "55" * 32),),
    "single": {"x": ((1, 3, 8, 8),) * 3},
}


COUNTED = [name for name in KeyFields.__struct_fields__ if name != "cuda"]


@pytest.mark.parametrize("name", COUNTED)
def test_every_field_changes_the_key_and_is_explained(name: str) -> None:
    before, after = fields(), fields(**{name: OTHER[name]})
    assert engine_key(before) != engine_key(after)
    assert differences(before, after)


@pytest.mark.parametrize(("name", "value"), [(n, OTHER[n]) for n in Target.__struct_fields__ if n != "cuda"])
def test_every_fact_about_the_machine_reaches_the_key(name: str, value: Any) -> None:
    other = key_fields(model(), BuildOptions(), msgspec.structs.replace(ORIN, **{name: value}))
    assert engine_key(other) != engine_key(fields())


OPTIONS: dict[str, Any] = {
    "precision": "fp32",
    "batch": (1, 1, 4),
    "single": True,
    "shapes": {"x": ((1, 3, 8, 8), (1, 3, 8, 8), (9, 3, 8, 8))},
    "pools": {"WORKSPACE": 1 << 20},
    "optimization_level": 2,
    "dla_core": 1,
    "gpu_fallback": False,
    "sparsity": True,
    "refit": True,
    "version_compatible": True,
    "exclude_lean_runtime": True,
    "hardware_compatibility": "ampere_plus",
    "profiling_verbosity": "detailed",
    "precision_constraints": "obey",
    "layer_precisions": {"conv*": "fp32"},
    "io_formats": {"x": "fp16:chw"},
    "tactic_sources": ("JIT_CONVOLUTIONS",),
    "max_aux_streams": 0,
    "avg_timing_runs": 4,
}


@pytest.mark.parametrize("name", sorted(set(BuildOptions.__struct_fields__) - {"plugins", "calibrator"}))
def test_every_option_reaches_the_key(name: str) -> None:
    usual = BuildOptions(batch=(1, 2, 2) if name != "dla_core" else (1, 1, 1))
    options = msgspec.structs.replace(usual, **{name: OPTIONS[name]})
    assert engine_key(key_fields(model(), options, ORIN)) != engine_key(key_fields(model(), usual, ORIN))


def test_a_plugins_content_reaches_the_key(tmp_path: Path) -> None:
    plugin = tmp_path / "p.so"
    keys = []
    for content in (b"a", b"b"):
        plugin.write_bytes(content)
        keys.append(engine_key(key_fields(model(), BuildOptions(plugins=(str(plugin),)), ORIN)))
    assert keys[0] != keys[1]
    with pytest.raises(InputError, match=r"none\.so: can't be read"):
        key_fields(model(), BuildOptions(plugins=(str(tmp_path / "none.so"),)), ORIN)


def test_weights_beside_the_model_reach_the_key() -> None:
    keys = {
        engine_key(key_fields(dataclasses.replace(model(), external=external), BuildOptions(), ORIN))
        for external in ((), (("w.bin", "33" * 32),), (("w.bin", "44" * 32),), (("v.bin", "33" * 32),))
    }
    assert len(keys) == 4


def test_the_models_place_is_no_part_of_the_key() -> None:
    moved = dataclasses.replace(model(), path=Path("/elsewhere/other.onnx"))
    assert key_fields(moved, BuildOptions(), ORIN) == fields()


def test_an_engine_with_one_profile_has_the_key_that_it_had_before_there_were_two() -> None:
    assert engine_key(fields()) == "e9edd152458f70d2709f9a3b4eec1a31817770d4a0e51cb6f468583923ee39f0"
    assert engine_key(msgspec.json.decode(b'{"single": {}, ' + msgspec.json.encode(fields())[1:], type=KeyFields)) == (
        engine_key(fields())
    )


def test_two_ways_to_ask_for_the_same_shapes_are_one_engine() -> None:
    by_shape = BuildOptions(shapes={"x": ((1, 3, 8, 8),) * 3})
    assert key_fields(model(), by_shape, ORIN) == fields()


def test_the_key_is_stable() -> None:
    """A change here is a change of the schema: raise it, or every cache in the field is lost without a word."""
    assert engine_key(fields()) == "e9edd152458f70d2709f9a3b4eec1a31817770d4a0e51cb6f468583923ee39f0"


def test_the_key_of_the_first_schema_is_what_it_was() -> None:
    """It had CUDA's version in it, so that engines of that time are found and trusted still."""
    before = fields(schema=1)
    assert engine_key(before) == "a589b7b0823eebc02c770051e230eea090d16edebd8305eb7f89c9d8b982776c"
    assert engine_key(fields(schema=1, cuda="12.5")) != engine_key(before)
    assert engine_key(renewed(before)) == engine_key(fields())
    assert differences(before, fields()) == []


@pytest.mark.parametrize("cuda", ["12.9", "13.5", None])
def test_another_cuda_python_makes_no_other_engine(cuda: str | None) -> None:
    """The version of the CUDA runtime is that of a Python package: upgrading it must not build every engine again."""
    other = key_fields(model(), BuildOptions(), msgspec.structs.replace(ORIN, cuda=cuda))
    assert engine_key(other) == engine_key(fields())
    assert other.cuda == cuda
    assert differences(fields(), other) == []


@given(st.dictionaries(st.text(max_size=5), st.integers(1, 9), max_size=6), st.randoms())
def test_the_order_of_mappings_is_no_part_of_the_key(pools: dict[str, int], rng: random.Random) -> None:
    items = list(pools.items())
    rng.shuffle(items)
    one, other = (key_fields(model(), BuildOptions(pools=p), ORIN) for p in (pools, dict(items)))
    assert engine_key(one) == engine_key(other)


@given(st.permutations(sorted(COUNTED)), st.integers(0, len(COUNTED)))
def test_explains_exactly_what_changed(names: list[str], count: int) -> None:
    changed = fields(**{name: OTHER[name] for name in names[:count]})
    assert bool(differences(fields(), changed)) == bool(count)
    assert differences(changed, changed) == []


PHRASES = {
    "schema": "key schema 2 → 3",
    "model": "model file 111111111111 → 222222222222",
    "external_data": "external data none → w.bin 333333333333",
    "flavour": "TensorRT flavour tensorrt → tensorrt_rtx",
    "tensorrt": "TensorRT 10.3.0.30 → 10.3.0.31",
    "compute_capability": "compute capability 8.7 → 8.6",
    "gpu": "GPU Orin → Orin NX",
    "sm_count": "number of SMs 8 → 4",
    "integrated": "integrated GPU yes → no",
    "os": "OS linux → qnx",
    "arch": "architecture aarch64 → x86_64",
    "l4t": "L4T 36.4.3 → 36.4.4",
    "dla_core": "DLA core none → 0",
    "precision": "precision fp16 → int8",
    "profiles": "shapes of x 1x3x8x8:1x3x8x8:1x3x8x8 → 1x3x8x8:2x3x8x8:4x3x8x8",
    "calibration": "calibration data none → 444444444444",
    "plugins": "plugins none → p.so 555555555555",
    "single": "shapes of x for single pictures none → 1x3x8x8:1x3x8x8:1x3x8x8",
}


@pytest.mark.parametrize("name", PHRASES)
def test_every_field_has_its_words(name: str) -> None:
    assert differences(fields(), fields(**{name: OTHER[name]})) == [PHRASES[name]]


def test_settings_are_told_one_by_one() -> None:
    asked = BuildOptions(optimization_level=5, io_formats={"x": "fp16:chw"}, tactic_sources=("A", "B"), sparsity=True)
    assert differences(fields(), key_fields(model(), asked, ORIN)) == [
        "sparsity no → yes",
        "io formats none → x=fp16:chw",
        "optimization level none → 5",
        "tactic sources none → A,B",
    ]


def test_wording() -> None:
    old = fields(tensorrt=(8, 6, 0, 12), flags={"sparsity": False}, l4t=None)
    assert differences(old, fields(flags={"sparsity": True})) == [
        "TensorRT 8.6.0.12 → 10.3.0.30",
        "L4T none → 36.4.3",
        "sparsity no → yes",
    ]
    shapes = fields(profiles={"x": ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))})
    assert differences(fields(), shapes) == ["shapes of x 1x3x8x8:1x3x8x8:1x3x8x8 → 1x3x8x8:1x3x8x8:4x3x8x8"]
    plugin = fields(plugins=(("p.so", "ab" * 32),))
    assert differences(fields(), plugin) == ["plugins none → p.so abababababab"]
