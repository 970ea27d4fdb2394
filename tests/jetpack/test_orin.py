"""The TensorRT backend whole, as processes on an Orin of stubs: kernels, pins, graphs, and the loss of the GPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jetpack.orin import Orin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
QUIET = ("--set", "publish=null", "--set", "model.max_batch=2")
WHOLE = "CUDA graphs, preprocessing on the GPU, candidates chosen on the GPU"
PATIENCE_S = 90


def run(board: Orin, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`edgeinfer run` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "edgeinfer", "run", *QUIET, *arguments],
        cwd=folder,
        env=environment(board),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def environment(board: Orin) -> dict[str, str]:
    """With a cache of the board's own, so that engines are built once."""
    return {**board.environment(), "XDG_CACHE_HOME": str(board.libraries.parent / "cache")}


def detections(text: str) -> list[list[dict[str, Any]]]:
    """Those of each frame, from JSON lines."""
    messages = [json.loads(line) for line in text.splitlines()]
    return [sorted(m["detections"], key=lambda d: d["box"]) for m in messages if "detections" in m]


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    command = [sys.executable, "-m", "edgeinfer", "run", *QUIET, "--backend", "onnxruntime", "--source", str(photos)]
    done = subprocess.run(
        [*command, "--jsonl", "-"],
        cwd=tmp_path_factory.mktemp("expected"),
        capture_output=True,
        text=True,
        check=True,
    )
    found = detections(done.stdout)
    assert sum(map(len, found)) >= 5
    return found


@pytest.mark.parametrize(
    ("settings", "options", "detail"),
    [
        ({}, [], WHOLE),
        ({"integrated": 0}, [], WHOLE),
        ({}, ["--set", "backend.graphs=false"], WHOLE.replace("CUDA", "no CUDA")),
        ({}, ["--set", "backend.gpu_preprocess=false"], "CUDA graphs, preprocessing on the CPU"),
    ],
    ids=["orin", "own-memory", "no-graphs", "cpu-preprocess"],
)
def test_an_engine_finds_what_onnx_runtime_finds(
    shared_board: Orin,
    tmp_path: Path,
    photos: Path,
    expected: list[list[dict[str, Any]]],
    settings: dict[str, int],
    options: list[str],
    detail: str,
) -> None:
    """Within what the GPU's own preprocessing may differ: a level of 255 here and there."""
    shared_board.set(**settings)
    done = run(
        shared_board, tmp_path, "--backend", "tensorrt", "--source", str(photos), "--jsonl", "-", "--verbose", *options
    )
    assert done.returncode == 0, done.stderr
    assert "nanodet-g@e747d49e on tensorrt-fp16" in done.stderr
    assert detail in done.stderr
    assert "warning" not in done.stderr
    found = detections(done.stdout)
    assert [[d["label"] for d in frame] for frame in found] == [[d["label"] for d in frame] for frame in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert abs(one["score"] - other["score"]) < 0.02
            assert np.abs(np.subtract(one["box"], other["box"])).max() < 4


@contextmanager
def running(board: Orin, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`edgeinfer run` on the demo, with its messages in `out.jsonl`; ended with the block."""
    command = [sys.executable, "-m", "edgeinfer", "run", *QUIET, "--source", "demo:", "--set", "sources.demo.fps=5"]
    process = subprocess.Popen(
        [*command, "--jsonl", str(folder / "out.jsonl"), *arguments],
        cwd=folder,
        env={**environment(board), "XDG_STATE_HOME": str(folder / "state")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for the condition while the process runs."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up
        time.sleep(0.05)


def frames(folder: Path) -> int:
    """How many results there are so far."""
    path = folder / "out.jsonl"
    return path.read_text().count('"detections"') if path.exists() else 0


def only_error(said: str) -> str:
    """The one line of error."""
    errors = [line for line in said.splitlines() if line.startswith("edgeinfer: error: ")]
    assert len(errors) == 1, said
    return errors[0]


@pytest.mark.parametrize(
    ("call", "status"), [("cuEventQuery", 700), ("cuGraphLaunch", 719), ("cuMemcpyHtoDAsync_v2", 999)]
)
def test_a_gpu_that_is_lost_in_mid_run_ends_the_process(
    shared_board: Orin, tmp_path: Path, call: str, status: int
) -> None:
    """At once, with one line, for somebody else to start it again; the next process finds the GPU as good as before."""
    shared_board.set()
    graphs = ["--set", f"backend.graphs={'false' if call.startswith('cuMemcpy') else 'true'}"]
    with running(shared_board, tmp_path, "--backend", "tensorrt", *graphs) as process:
        until(lambda: frames(tmp_path) > 5, process)
        shared_board.set(**{call: status})
        said = process.communicate(timeout=PATIENCE_S)[1]
    shared_board.set()
    assert process.returncode == 70, said
    assert f"CUDA error {status}" in only_error(said)
    records = [path.read_text() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert any("sticky-cuda-error" in record for record in records)
    with running(shared_board, tmp_path, "--backend", "tensorrt") as process:
        before = frames(tmp_path)
        until(lambda: frames(tmp_path) > before + 2, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_a_gpu_that_hangs_is_noticed(shared_board: Orin, tmp_path: Path) -> None:
    """Nothing that is in a stream ends any more."""
    shared_board.set()
    with running(shared_board, tmp_path, "--backend", "tensorrt") as process:
        until(lambda: frames(tmp_path) > 5, process)
        shared_board.set(hold=1)
        said = process.communicate(timeout=PATIENCE_S)[1]
    shared_board.set()
    assert process.returncode == 70, said
    assert "stage inference has not moved" in only_error(said)


def test_a_lack_of_memory_is_not_held_against_the_engine(shared_board: Orin, tmp_path: Path) -> None:
    """With memory again the engine is there, and nothing is built."""
    demo = ["--source", "demo:", "--set", "model.max_batch=1", "--backend", "tensorrt", "--frames", "2", "--verbose"]
    shared_board.set()
    assert run(shared_board, tmp_path, *demo).returncode == 0
    shared_board.set(memory=1_000_000)
    for _ in range(3):
        done = run(shared_board, tmp_path, *demo)
        assert done.returncode != 0
        assert "CUDA error 2 (cudaErrorMemoryAllocation)" in done.stderr
    shared_board.set()
    said = run(shared_board, tmp_path, *demo).stderr
    assert "nanodet-g@e747d49e on tensorrt-fp16" in said
    assert "building" not in said
