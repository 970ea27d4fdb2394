"""TensorRT 11 and TensorRT-RTX want the file in its precision: what that needs is known before a build begins."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgeinfer.backends import tensorrt
from edgeinfer.config.card import load_model
from edgeinfer.engine import machine, toolkit
from edgeinfer.engine.build import samples
from edgeinfer.engine.build.precision import plan_precision
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, Task, make_task
from edgeinfer.engine.options import BuildOptions, Precision
from edgeinfer.engine.store.cache import Cache
from edgeinfer.errors import UnavailableError
from edgeinfer.models import conversion
from edgeinfer.models.conversion import PACKAGES, missing, needs_conversion
from edgeinfer.models.onnxfile import read_model
from tests.engine.fakes import VERSIONS, fake_toolkit
from tests.engine.quick import quickly
from tests.engine.samples import NANODET, ORIN

THOR = msgspec.structs.replace(ORIN, tensorrt=(11, 4, 1, 9), compute_capability="11.0", gpu="Thor")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_the_number_of_a_version_says_what_its_members_say(version: str, precision: Precision) -> None:
    kit, plain = fake_toolkit(version), read_model(NANODET)
    scaled = (dataclasses.replace(plain.nodes[0], operator="QuantizeLinear"), *plain.nodes[1:])
    for half, quantized in itertools.product((False, True), repeat=2):
        types = frozenset({"float16"}) if half else plain.weight_types
        model = dataclasses.replace(plain, weight_types=types, nodes=scaled if quantized else plain.nodes)
        assert (model.half, model.quantized) == (half, quantized)
        way = plan_precision(kit.trt, model, precision)
        needed = needs_conversion(kit.version, kit.flavour, precision, half, quantized)
        assert bool(needed) == bool(way.convert), way.how


def test_what_a_conversion_needs_and_what_is_there() -> None:
    assert needs_conversion((11, 4, 0, 106), "tensorrt", "fp16") == ("onnx", "onnxconverter-common")
    assert needs_conversion((1, 7, 1, 116), "tensorrt_rtx", "int8") == ("onnx", "onnxruntime")
    assert needs_conversion((10, 16, 1, 11), "tensorrt", "fp16") == ()
    assert missing(("onnx", "no-such-package")) == ("no-such-package",)
    assert missing(PACKAGES["fp16"], {"onnx"}.__contains__) == ("onnxconverter-common",)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the extra `build` is installed."""
    monkeypatch.setattr(conversion, "_installed", lambda package: package == "onnxruntime")


def task(precision: Precision = "fp16", here: Any = THOR) -> Task:
    return make_task(NANODET, BuildOptions(precision=precision), here, Extras(calibration=SampleSource("/pictures")))


@pytest.mark.usefixtures("bare")
def test_a_build_that_would_fail_halfway_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "digest", lambda *_: "d")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(UnavailableError) as caught:
        quickly(cache, task())
    assert str(caught.value) == (
        "nanodet-g-416.onnx: this TensorRT takes fp16 from the ONNX file, and to convert that onnx and "
        "onnxconverter-common are missing; pip install 'edgeinfer[build]', or take fp32"
    )
    with pytest.raises(UnavailableError, match="takes int8 from the ONNX file, and to convert that onnx is missing"):
        quickly(cache, task("best"))
    assert quickly(cache, task("fp32")).key
    assert quickly(cache, task("fp16", ORIN)).key, "TensorRT 10 does it by itself"


def test_a_cached_engine_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = SimpleNamespace(flavour="tensorrt", version=THOR.tensorrt)
    monkeypatch.setattr(toolkit, "load", lambda *_: kit)
    monkeypatch.setattr(machine, "detect", lambda *_, **__: THOR)
    options = tensorrt.Options(cache=str(tmp_path / "cache"))
    prepared = tensorrt.Preparation(load_model("nanodet-g"), None, options)
    assert not prepared.cached
    monkeypatch.setattr(conversion, "_installed", lambda _: False)
    with pytest.raises(UnavailableError, match="onnx and onnxconverter-common are missing; pip install"):
        tensorrt.Preparation(load_model("nanodet-g"), None, options)
    monkeypatch.undo()
    monkeypatch.setattr(toolkit, "load", lambda *_: kit)
    monkeypatch.setattr(machine, "detect", lambda *_, **__: THOR)
    assert prepared._task is not None
    quickly(prepared._cache, prepared._task)
    monkeypatch.setattr(conversion, "_installed", lambda _: False)
    assert tensorrt.Preparation(load_model("nanodet-g"), None, options).cached
