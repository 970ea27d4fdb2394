"""The TensorRT backend and the daemon on it, on a real GPU. Elsewhere they skip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends.tensorrt import Options, Prepared, TensorRt
from edgeinfer.card import Model, load_model
from edgeinfer.engine.cudart import cuda_runtime
from edgeinfer.errors import EdgeinferError
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from edgeinfer.types import Float32
from tests.reference import detect, iou

pytestmark = pytest.mark.timeout(900)
LEVEL = os.environ.get("EDGEINFER_TEST_OPT_LEVEL")
SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")  # the others need cuBLAS and cuDNN
MAX_BATCH = 8


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    level = int(LEVEL) if LEVEL else None
    return Options(opt_level=level, tactic_sources=SOURCES, cache=str(tmp_path_factory.mktemp("engines")))


@pytest.fixture(scope="session")
def model() -> Model:
    return load_model("nanodet-g")


@pytest.fixture(scope="session")
def prepared(model: Model, options: Options) -> Prepared:
    try:
        return Prepared(model, MAX_BATCH, options)
    except EdgeinferError as error:
        pytest.skip(f"needs TensorRT and a GPU: {error}")


@pytest.fixture
def backend(prepared: Prepared) -> Iterator[TensorRt]:
    opened = prepared.open(lambda _: None, threading.Event())
    yield opened
    opened.close()


def inputs(model: Model, count: int) -> list[Float32]:
    camera, preprocess = Demo(DemoOptions(realtime=False)), Preprocessor(model.card.input)
    tensors = []
    for index in range(count):
        tensor = np.empty((3, 416, 416), np.float32)
        preprocess(camera.render(index * 7), tensor)
        tensors.append(tensor)
    return tensors


def test_batches_come_back_in_order_whatever_is_in_flight(backend: TensorRt, model: Model) -> None:
    tensors = inputs(model, 40)
    alone = [run_alone(backend, tensor) for tensor in tensors]
    together: list[Float32] = []
    waiting = list(tensors)
    while len(together) < len(tensors):
        slot = backend.acquire() if waiting else None
        if slot is not None:
            count = min(1 + len(waiting) % MAX_BATCH, len(waiting))
            for row in range(count):
                slot.input[row] = waiting.pop(0)
            backend.submit(slot, count)
            continue
        done = backend.collect(10)
        assert done is not None
        together += [scores.copy() for scores in done.outputs["scores"]]
        backend.release(done)
    for one, many in zip(alone, together, strict=True):
        assert np.abs(one - many).max() < 0.02  # another batch may take other tactics


def run_alone(backend: TensorRt, tensor: Float32) -> Float32:
    slot = backend.acquire()
    assert slot is not None
    slot.input[0] = tensor
    backend.submit(slot, 1)
    done = backend.collect(10)
    assert done is not None
    scores: Float32 = done.outputs["scores"][0].copy()
    backend.release(done)
    return scores


def test_opening_and_closing_leaks_no_gpu_memory(prepared: Prepared) -> None:
    runtime = cuda_runtime()
    free = []
    for _ in range(12):
        prepared.open(lambda _: None, threading.Event()).close()
        free.append(runtime.cudaMemGetInfo()[1])
    print(f"\nfree GPU memory after 2 and 12 cycles: {free[1]} {free[-1]}")
    assert free[1] - free[-1] < 16 << 20


def edgeinfer_run(options: Options, *args: str) -> subprocess.CompletedProcess[str]:
    settings = [f"backend.tactic_sources={list(SOURCES)}", f"backend.cache={options.cache}", "publish=null"]
    if options.opt_level is not None:
        settings.append(f"backend.opt_level={options.opt_level}")
    command = [sys.executable, "-m", "edgeinfer", "run", *args]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_daemon_finds_what_onnx_runtime_finds(prepared: Prepared, options: Options) -> None:
    process = edgeinfer_run(
        options,
        "--backend",
        "tensorrt",
        "--source",
        "demo:",
        "--frames",
        "150",
        "--jsonl",
        "-",
        "--set",
        "sources.demo.realtime=false",
        "--set",
        f"model.max_batch={MAX_BATCH}",
    )
    assert process.returncode == 0, process.stderr
    camera, matched, expected = Demo(DemoOptions(realtime=False)), 0, 0
    for line in map(json.loads, process.stdout.splitlines()):
        assert line["backend"] == "tensorrt-fp16"
        for class_id, _, box in detect(camera.render(line["frame_id"])):
            expected += 1
            matched += any(d["class_id"] == class_id and iou(d["box"], box) >= 0.9 for d in line["detections"])
    print(f"\nmatched {matched} of {expected}")
    assert expected >= 150
    assert matched >= 0.98 * expected


def test_the_daemon_serves_while_it_builds_and_then_swaps(prepared: Prepared, options: Options, tmp_path: Path) -> None:
    fresh = Options(opt_level=options.opt_level, tactic_sources=SOURCES, cache=str(tmp_path / "fresh"))
    started = time.monotonic()
    process = edgeinfer_run(fresh, "--source", "demo:", "--frames", "4000", "--jsonl", "-")
    print(f"\n{time.monotonic() - started:.0f} s\n{process.stderr}")
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(4000))
    backends = [line["backend"] for line in lines]
    swap = backends.index("tensorrt-fp16")
    assert swap > 0
    assert set(backends[:swap]) == {"onnxruntime-cpu"}
    assert set(backends[swap:]) == {"tensorrt-fp16"}
