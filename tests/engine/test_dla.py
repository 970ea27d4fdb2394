"""Networks on a DLA: one shape, the right precision, the core set before the plan is loaded, and how much went there.

No machine with a DLA has been available: what TensorRT does is simulated, its names are those of its real versions.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeinfer.engine.build.advice import advise
from edgeinfer.engine.build.builder import BuildOutcome
from edgeinfer.engine.build.dla import PartCounter
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.precision import plan_precision
from edgeinfer.engine.build.runner import Runner
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, Task, make_task
from edgeinfer.engine.errors import BuildError
from edgeinfer.engine.options import BuildOptions, profiles, usual_batches
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.manifest import DlaShare
from edgeinfer.engine.toolkit import make_logger
from edgeinfer.errors import UnavailableError, UsageError
from edgeinfer.models.onnxfile import read_model
from tests.engine.fakes import VERSIONS, FakeDevice, fake_toolkit
from tests.engine.quick import quick
from tests.engine.samples import NANODET, ORIN, model
from tests.engine.test_construct import BY_FILE, BY_FLAG, build, warnings

ON_DLA = BuildOptions(dla_core=1, batch=(4, 4, 4))


def fake_with_dla(version: str) -> Any:
    kit = fake_toolkit(version)
    kit.trt.world.dla_cores = 2
    return kit


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dla_gets_one_shape_and_a_precision_that_it_has(version: str, double: Path, tmp_path: Path) -> None:
    kit = fake_with_dla(version)
    made, events = build(kit, double, tmp_path, "fp16", options=ON_DLA)
    world = kit.trt.world
    assert world.network._inputs[0][:2] == ["x", [4, 4]]
    assert world.config._profiles == []
    assert (world.config.default_device_type, world.config.DLA_core) == (kit.trt.DeviceType.DLA, 1)
    assert {"FP16", "GPU_FALLBACK"} & world.flags == (
        {"GPU_FALLBACK"} if version in BY_FILE else {"FP16", "GPU_FALLBACK"}
    )
    total = world.network.num_layers
    assert made.dla == DlaShare(core=1, able=total, layers=total, parts=1)
    assert warnings(events) == ""


@pytest.mark.parametrize("version", BY_FLAG)
def test_int8_for_a_dla_is_calibrated_with_its_one_shape(
    version: str, double: Path, tmp_path: Path, inputs: SampleSource
) -> None:
    kit = fake_with_dla(version)
    build(kit, double, tmp_path, "int8", options=ON_DLA, calibration=inputs)
    assert [len(batch[0]) for batch in kit.trt.world.calibrated] == [4 * 4 * 4] * 3


@pytest.mark.parametrize("version", VERSIONS)
def test_where_there_are_precision_flags_a_dla_is_given_them(version: str) -> None:
    half = dataclasses.replace(read_model(NANODET), weight_types=frozenset({"float16"}))
    plan = plan_precision(fake_toolkit(version).trt, half, "fp16", dla=True)
    assert (plan.strongly_typed, plan.flags) == ((True, ()) if version in BY_FILE else (False, ("FP16",)))


@pytest.mark.parametrize("tells", ["log", "inspector"])
@pytest.mark.parametrize(
    ("off", "parts", "words"),
    [
        ((3,), 2, "192 of 193 layers on DLA core 0, in 2 parts"),
        ((3, 7, 9), 4, "190 of 193 layers on DLA core 0, in 4 parts"),
        (range(193), 0, "none of 193 layers on DLA core 0: the GPU runs them all"),
    ],
)
def test_what_went_to_the_dla_is_counted(
    tells: str, off: Sequence[int], parts: int, words: str, tmp_path: Path
) -> None:
    kit = fake_with_dla("10.3.0")
    kit.trt.world.off_dla = set(off)
    kit.trt.world.tells_parts = tells
    made, events = build(kit, NANODET, tmp_path, "fp16", options=BuildOptions(dla_core=0))
    assert made.dla is not None
    assert (made.dla.parts, str(made.dla), made.dla.used) == (parts, words, parts > 0)
    assert warnings(events) == ("" if parts else words)


def test_where_tensorrt_tells_nothing_of_parts_only_the_layers_are_told(tmp_path: Path) -> None:
    kit = fake_with_dla("10.3.0")
    kit.trt.world.tells_parts = "nowhere"
    made, _ = build(kit, NANODET, tmp_path, "fp16", options=BuildOptions(dla_core=0))
    assert str(made.dla) == "193 of 193 layers on DLA core 0"


def test_the_lines_of_a_real_log_are_counted() -> None:
    counter = PartCounter()
    assert counter.parts is None
    for line in (
        "---------- Layers Running on DLA ----------",
        "[DlaLayer] {ForeignNode[Conv_0]}",
        "[DlaLayer] {ForeignNode[Relu_10...Conv_11]}",
        "---------- Layers Running on GPU ----------",
        "[GpuLayer] CONVOLUTION: fc6",
    ):
        counter.hear(line)
    assert counter.parts == 2
    on_gpu = PartCounter()
    on_gpu.hear("[GpuLayer] CONVOLUTION: fc6")
    assert on_gpu.parts == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_dla_one_line_says_which_boards_have_one(version: str, double: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"sees no DLA here: .*Orin Nano and Thor none; leave out --dla"):
        build(fake_toolkit(version), double, tmp_path, "fp16", options=ON_DLA)


def test_a_core_too_far(double: Path, tmp_path: Path) -> None:
    kit = fake_with_dla("10.3.0")
    kit.trt.world.dla_cores = 1
    with pytest.raises(UnavailableError, match=r"DLA core 1 does not exist: TensorRT 10.3.0.30 sees 1 here"):
        build(kit, double, tmp_path, "fp16", options=ON_DLA)


def test_the_core_is_set_before_the_plan_is_loaded_for_the_check_too(double: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    kit = fake_with_dla("10.3.0")
    made, _ = build(kit, double, tmp_path, "fp16", options=ON_DLA, verify=True)
    assert made.verification.state == "passed"
    plan = (tmp_path / "engine.plan").read_bytes()
    log: deque[str] = deque()
    with pytest.raises(BuildError, match="the plan wants DLA core 1, not -1"):
        Runner(kit, make_logger(kit.trt, log), log, plan, FakeDevice({}))  # type: ignore[arg-type]


def test_what_no_dla_does_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UsageError, match=r"from 1x3x8x8 to 4x3x8x8: a DLA takes one shape; name one batch"):
        profiles(model(), BuildOptions(dla_core=0, batch=(1, 2, 4)))
    assert profiles(model(), ON_DLA) == {"x": ((4, 3, 8, 8),) * 3}
    for precision in ("fp32", "tf32"):
        with pytest.raises(UsageError, match=f"a DLA computes in fp16 and int8, not in {precision}"):
            make_task(NANODET, BuildOptions(dla_core=0, precision=precision), ORIN)


def test_the_usual_batch_of_a_dla_is_one_size() -> None:
    assert [usual_batches(largest, dla=True) for largest in (1, 8)] == [(1, 1, 1), (8, 8, 8)]


def task(**changes: Any) -> Task:
    return make_task(NANODET, BuildOptions(dla_core=0, **changes), ORIN, Extras(calibration=None))


def test_the_best_precision_of_a_dla_is_one_that_it_has() -> None:
    assert task(precision="best").precisions() == ("fp16",)


def test_the_share_is_in_the_manifest_in_the_log_and_in_what_explain_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for able, level in ((41, logging.INFO), (0, logging.WARNING)):
        share = DlaShare(core=0, able=able, layers=53, parts=None)

        def built(*args: Any, share: DlaShare = share) -> BuildOutcome:
            outcome = quick(*args)
            return dataclasses.replace(outcome, built=msgspec.structs.replace(outcome.built, dla=share))

        cache, what = Cache(tmp_path / str(able)), task()
        with caplog.at_level(logging.INFO):
            engine = ensure_task(what, cache, lambda _: None, threading.Event(), build=built)
        assert engine.manifest.build.dla == share
        assert [record.levelno for record in caplog.records if record.message.endswith(str(share))] == [level]
        assert advise(what, cache).sentence.endswith(f"{share})")


def test_a_plan_with_a_dla_belongs_to_its_l4t() -> None:
    other = make_task(NANODET, BuildOptions(dla_core=0), msgspec.structs.replace(ORIN, l4t="36.4.4"))
    assert other.key != task().key


def test_an_inspector_that_fails_costs_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = fake_with_dla("10.3.0")
    kit.trt.world.tells_parts = "nowhere"

    def broken(_: Any) -> None:
        raise RuntimeError("no inspector here")

    monkeypatch.setattr(kit.trt.ICudaEngine, "create_engine_inspector", broken)
    made, _ = build(kit, NANODET, tmp_path, "fp16", options=BuildOptions(dla_core=0))
    assert made.dla == DlaShare(core=0, able=193, layers=193, parts=None)
