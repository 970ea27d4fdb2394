"""Engines on a real GPU with the real TensorRT: built in fp32, fp16 and int8, checked, cached, reloaded, refused.

Elsewhere they skip. On a GPU that is newer than its TensorRT set EDGEINFER_TEST_OPT_LEVEL=0, which builds in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.config.card import load_model
from edgeinfer.engine import machine, toolkit
from edgeinfer.engine.build.advice import advise
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, make_task
from edgeinfer.engine.errors import PlanError, ToleranceError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.manifest import Tolerance
from edgeinfer.engine.store.plan import read_header
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.errors import UnavailableError
from edgeinfer.gpu.device import open_device
from tests.engine.samples import NANODET

pytestmark = pytest.mark.timeout(900)

SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")  # the others need cuBLAS and cuDNN
LEVEL = os.environ.get("EDGEINFER_TEST_OPT_LEVEL")


@pytest.fixture(scope="session")
def trt() -> Toolkit:
    """TensorRT and a GPU, or a skip with the reason."""
    try:
        found = toolkit.load("tensorrt")
        with open_device():
            return found
    except UnavailableError as error:
        pytest.skip(f"needs TensorRT and a GPU: {error}")


@pytest.fixture(scope="session")
def here(trt: Toolkit) -> Target:
    found = machine.detect(trt)
    assert None not in {found.cuda, found.compute_capability, found.gpu, found.sm_count, found.integrated}
    return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> SampleSource:
    """The photographs that ship with the package, else drawn scenes."""
    import edgeinfer  # noqa: PLC0415

    photographs = Path(edgeinfer.__file__).parent / "sources/photos"
    if any(photographs.glob("*.jpg")):
        return SampleSource(str(photographs), load_model("nanodet-g").card.input)
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder)
    return SampleSource(str(folder), load_model("nanodet-g").card.input)


def draw(folder: Path) -> None:
    """Twelve pictures with soft ground and hard shapes."""
    cv2 = pytest.importorskip("cv2")
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(0)
    for number in range(12):
        picture = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (640, 360), interpolation=cv2.INTER_CUBIC)
        for _ in range(9):
            (x, y), size = rng.integers(0, 360, 2).tolist(), int(rng.integers(20, 120))
            colour = rng.integers(0, 255, 3).tolist()
            cv2.rectangle(picture, (x, y), (x + size, y + size), colour, -1)
            cv2.circle(picture, (640 - x, y), size // 2, colour[::-1], -1)
        cv2.imwrite(str(folder / f"{number}.png"), picture)


def options(precision: Any, **changes: Any) -> BuildOptions:
    level = None if LEVEL is None else int(LEVEL)
    return BuildOptions(
        precision=precision, batch=(1, 1, 4), optimization_level=level, tactic_sources=SOURCES, **changes
    )


def build(cache: Cache, here: Target, precision: Any, pictures: SampleSource, **changes: Any) -> CachedEngine:
    extras = Extras(calibration=pictures, verification=pictures, **changes)
    task = make_task(NANODET, options(precision), here, extras)
    return ensure_task(task, cache, lambda _: None, threading.Event())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_builds_and_agrees_with_onnx_runtime(
    precision: str,
    trt: Toolkit,
    here: Target,
    cache: Cache,
    pictures: SampleSource,
    record_property: Callable[[str, object], None],
) -> None:
    engine = build(cache, here, precision, pictures)
    check = engine.manifest.verification
    figures = {
        "seconds": engine.manifest.build.seconds,
        "MiB": engine.manifest.plan_bytes / 2**20,
        "latency_ms": check.latency_ms,
    }
    errors = {name: (error.max_error, error.mean_error, error.scale) for name, error in check.outputs.items()}
    record_property(precision, json.dumps({**figures, **errors}))
    print(precision, json.dumps({**figures, **errors}))
    assert check.state == "passed"
    assert set(check.outputs) == {"boxes", "scores"}
    assert read_header(engine.folder / "engine.plan").version == trt.version
    assert engine.manifest.build.warnings == ()


RELOAD = """
import sys, time
from collections import deque
from pathlib import Path
import numpy as np
from edgeinfer.engine import toolkit
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.toolkit import make_logger
from edgeinfer.gpu.device import open_device
from edgeinfer.engine.build.runner import Runner
engine, trt, log = Cache(Path(sys.argv[1])).get(sys.argv[2]), toolkit.load("tensorrt"), deque()
with open_device() as device:
    start = time.monotonic()
    runner = Runner(trt, make_logger(trt.trt, log), log, engine.read(), device)
    seconds = time.monotonic() - start
    for batch in (1, 4):
        outputs = runner({"images": np.zeros((batch, 3, 416, 416), np.float32)})
        assert outputs["boxes"].shape == (batch, 3549, 4), outputs["boxes"].shape
        assert outputs["scores"].shape == (batch, 3549, 80), outputs["scores"].shape
print(seconds)
"""


def test_a_new_process_reloads_it(trt: Toolkit, here: Target, cache: Cache, pictures: SampleSource) -> None:
    engine = build(cache, here, "fp16", pictures)
    assert build(cache, here, "fp16", pictures) == engine, "it was built again"
    ended = subprocess.run(
        [sys.executable, "-c", RELOAD, str(cache.root), engine.key], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    print("load seconds", ended.stdout.strip())
    assert advise(make_task(NANODET, options("fp16"), here, Extras(calibration=pictures)), cache).action == "reuse"


def test_a_tampered_plan_is_refused_and_built_again(
    trt: Toolkit, here: Target, cache: Cache, pictures: SampleSource
) -> None:
    engine = build(cache, here, "fp16", pictures)
    plan = engine.folder / "engine.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    with pytest.raises(PlanError, match="checksum"):
        engine.read()
    again = build(cache, here, "fp16", pictures)
    assert again.manifest.build.finished_at != engine.manifest.build.finished_at
    assert again.read()


def test_an_engine_beyond_the_tolerance_is_refused(
    trt: Toolkit, here: Target, cache: Cache, pictures: SampleSource
) -> None:
    extras = Extras(verification=pictures, tolerance=Tolerance(0.0, 0.0))
    task = make_task(NANODET, options("fp16", avg_timing_runs=2), here, extras)
    with pytest.raises(ToleranceError, match=r"boxes max .* mean .* of .*scores max"):
        ensure_task(task, cache, lambda _: None, threading.Event())
    assert cache.get(task.key) is None


def test_best_keeps_the_fastest(trt: Toolkit, here: Target, cache: Cache, pictures: SampleSource) -> None:
    engine = build(cache, here, "best", pictures)
    assert set(engine.manifest.build.candidates) == {"int8", "fp16", "fp32"}
    times = [float(note.split()[0]) for note in engine.manifest.build.candidates.values() if note.endswith(" ms")]
    assert engine.manifest.verification.latency_ms == min(times)
    print("best", engine.manifest.build.candidates)
