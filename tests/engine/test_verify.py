"""The comparison with ONNX Runtime, and the engine that is run for it."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.engine.build import samples, verify
from edgeinfer.engine.build.runner import Runner
from edgeinfer.engine.store.manifest import OutputError, Tolerance, Verification
from edgeinfer.errors import UnavailableError
from tests.engine.fakes import FakeDevice, fake_toolkit
from tests.engine.samples import model
from tests.gpu import simulated


def doubled(sample: samples.Sample) -> samples.Sample:
    return {"y": 2 * sample["x"]}


def checked(count: int, candidate: Any = doubled) -> Verification:
    given = ({"x": np.full(2, n + 1, np.float32)} for n in range(count))
    return verify.verify(doubled, candidate, given, Tolerance(0.1, 0.1), "here")


def test_a_few_samples_are_enough() -> None:
    assert [checked(count).samples for count in (1, 8, 20)] == [1, 8, 8]
    found = checked(3)
    assert (found.state, found.inputs, found.tolerance) == ("passed", "here", Tolerance(0.1, 0.1))
    assert found.outputs == {"y": OutputError(0.0, 0.0, 6.0)}
    assert found.latency_ms is not None
    none = checked(0)
    assert (none.state, none.reason) == ("skipped", "no sample")
    assert verify.describe(none) == "not checked against ONNX Runtime: no sample"


def test_the_worst_of_all_samples_counts() -> None:
    def off(sample: samples.Sample) -> samples.Sample:
        wrong = 2 * sample["x"]
        wrong[0] += 1.0 if sample["x"][0] == 1 else 0.0
        return {"y": wrong}

    found = checked(3, off)
    assert found.outputs == {"y": OutputError(1.0, 0.5, 6.0)}
    assert found.state == "exceeded"
    assert verify.describe(found) == "errors against ONNX Runtime: y max 1 mean 0.5 of 6 (3 samples, here)"


def test_an_output_of_another_shape_is_told_with_its_sample() -> None:
    found = checked(2, lambda sample: {"y": np.zeros(3)})
    assert (found.state, found.samples) == ("exceeded", 1)
    assert verify.describe(found) == "output y has shape (3,) instead of (2,) (sample 1, here)"


def test_latency_is_the_median_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, runs = iter(np.cumsum([0, 0.001] * 19 + [0, 5.0])), list[int]()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    assert verify.latency_ms(lambda sample: runs.append(1) or sample, {}) == 1.0  # type: ignore[func-returns-value]
    assert len(runs) == 23


def test_a_reference_that_can_not_run_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(model(), path=tmp_path / "none.onnx")
    with pytest.raises(UnavailableError, match="ONNX Runtime can't run"):
        verify.reference_runner(broken)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match=r"can't be imported: .*edgeinfer\[cpu\]"):
        verify.reference_runner(broken)


# --- running an engine once


def runner(kit: Any, plan: bytes) -> Runner:
    return Runner(kit, kit.trt.ILogger(), [], plan, FakeDevice(kit.trt.world.memory))  # type: ignore[arg-type]


def plan_of(kit: Any, **changes: Any) -> bytes:
    known = {"inputs": [["x", [-1, 4], "float32"]], "outputs": [["y", [-1, 4], "float32"]]}
    return simulated.echo_plan(kit, **{**known, **changes})


def test_an_engine_is_run_in_its_own_types() -> None:
    kit = fake_toolkit("10.3.0")
    run = runner(kit, plan_of(kit))
    assert (run.inputs, run.outputs) == (["x"], ["y"])
    found = run({"x": np.arange(8).reshape(2, 4)})
    assert found["y"].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert found["y"].dtype == np.float32


def test_what_the_check_can_not_do_leaves_the_engine_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = fake_toolkit("10.3.0")
    sample = {"x": np.zeros((1, 4), np.float32)}
    run = runner(kit, plan_of(kit))
    kit.trt.world.logger = kit.trt.ILogger()
    monkeypatch.setattr(type(kit.trt.world.logger), "log", lambda *_: None)
    kit.trt.world.refusals.append("no")
    with pytest.raises(UnavailableError, match="TensorRT did not start the inference"):
        run(sample)
    with pytest.raises(UnavailableError, match="NumPy has no type for"):
        runner(kit, plan_of(kit, inputs=[["x", [-1, 4], "bfloat16"]]))(sample)
    monkeypatch.setattr(kit.trt.IExecutionContext, "get_tensor_shape", lambda *_: (1, -1))
    with pytest.raises(UnavailableError, match="shape of output 'y' depends on the data"):
        run(sample)
    monkeypatch.setattr(kit.trt.ICudaEngine, "get_tensor_location", lambda *_: kit.trt.TensorLocation.HOST)
    with pytest.raises(UnavailableError, match="takes shapes as data"):
        runner(kit, plan_of(kit))
