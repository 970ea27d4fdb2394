"""The real TensorRT-RTX, which parses and builds without a GPU: real networks, progress, cache, failures."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeinfer.engine import machine, toolkit
from edgeinfer.engine.build.advice import advise
from edgeinfer.engine.build.builder import CHILD
from edgeinfer.engine.build.convert import to_half, to_qdq
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.progress import BuildProgress
from edgeinfer.engine.build.samples import SampleSource, load, noise, usual_shapes
from edgeinfer.engine.build.task import Extras, make_task
from edgeinfer.engine.errors import BuildError, CacheError, PlanError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.foreign import accept
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.plan import read_header
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.errors import UnavailableError
from edgeinfer.models.onnxfile import read_model
from tests.engine.samples import NANODET

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rtx() -> Toolkit:
    """TensorRT-RTX, or a skip."""
    try:
        return toolkit.load("tensorrt_rtx")
    except UnavailableError as error:
        pytest.skip(f"needs tensorrt-rtx-cu13-bindings and -libs: {error}")


@pytest.fixture(scope="module")
def here(rtx: Toolkit) -> Target:
    return machine.detect(rtx)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def real_network(name: str) -> Path:
    """A network of the package rapidocr-onnxruntime, or a skip."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        pytest.skip("needs `pip install --no-deps rapidocr-onnxruntime`, which ships small real networks")
    return Path(found.origin).parent / "models" / name


def build(
    model: Path, options: BuildOptions, here: Target, cache: Cache, seen: list[BuildProgress] | None = None
) -> CachedEngine:
    on_progress: Any = (lambda _: None) if seen is None else seen.append
    return ensure_task(make_task(model, options, here, Extras()), cache, on_progress, threading.Event())


def profile(height: int, width: int) -> Any:
    return tuple((batch, 3, height, width) for batch in (1, 2, 4))


def text_direction() -> Path:
    return real_network("ch_ppocr_mobile_v2.0_cls_infer.onnx")


@functools.cache
def text_direction_renamed() -> Path:
    """The file calls its three free dimensions "?", which TensorRT takes for equal."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(text_direction())
    for name, dimension in zip(("n", "c", "h", "w"), model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        if dimension.dim_param:
            dimension.dim_param = name
    path = Path(tempfile.mkdtemp()) / "direction.onnx"
    atexit.register(shutil.rmtree, path.parent)
    onnx.save(model, path)
    return path


NETWORKS: dict[str, tuple[Callable[[], Path], dict[str, Any]]] = {
    "nanodet": (lambda: NANODET, {}),
    "text direction": (text_direction_renamed, {"x": profile(48, 192)}),
    "text detection": (lambda: real_network("ch_PP-OCRv4_det_infer.onnx"), {"x": profile(320, 320)}),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_real_networks_build_with_dynamic_batch(
    network: str, precision: Any, rtx: Toolkit, here: Target, cache: Cache
) -> None:
    if precision == "fp16":
        pytest.importorskip("onnxconverter_common")
    find, shapes = NETWORKS[network]
    seen: list[BuildProgress] = []
    options = BuildOptions(precision=precision, batch=(1, 2, 4), shapes=shapes, single=True)
    engine = build(find(), options, here, cache, seen)
    assert read_header(engine.folder / "engine.plan").version == rtx.version
    fractions = [moment.fraction for moment in seen if moment.fraction is not None]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 5
    assert engine.manifest.build.warnings == ()
    assert build(find(), options, here, cache) == engine
    assert advise(make_task(find(), options, here), cache).action == "reuse"


def make_static(source: Path, target: Path, shape: tuple[int, ...]) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(source)
    for size, dimension in zip(shape, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.Clear()
        dimension.dim_value = size
    del model.graph.value_info[:]
    onnx.save(model, target)


@pytest.mark.parametrize("network", NETWORKS)
def test_real_networks_build_with_a_static_batch(network: str, here: Target, cache: Cache, tmp_path: Path) -> None:
    find, shapes = NETWORKS[network]
    shape = shapes["x"][0] if shapes else (1, 3, 416, 416)
    make_static(find(), tmp_path / "static.onnx", shape)
    engine = build(tmp_path / "static.onnx", BuildOptions(precision="fp32"), here, cache)
    assert engine.manifest.fields.profiles == {}
    assert engine.read()[:4] == b"vtrt"


@pytest.mark.parametrize("network", ["nanodet", "text direction"])
def test_the_fp16_file_computes_what_the_fp32_one_does(network: str, tmp_path: Path) -> None:
    """On the CPU: what is checked is the conversion."""
    pytest.importorskip("onnxconverter_common")
    find, shapes = NETWORKS[network]
    to_half(find(), tmp_path / "half.onnx")
    outputs = run_both(find(), tmp_path / "half.onnx", BuildOptions(shapes=shapes))
    for expected, found in outputs:
        assert np.abs(expected - found).max() <= 0.05 * np.abs(expected).max()
    assert read_model(tmp_path / "half.onnx").half


def test_the_int8_file_computes_nearly_what_the_fp32_one_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = read_model(NANODET)
    samples = list(noise(model, usual_shapes(model, BuildOptions()), 4))
    to_qdq(NANODET, tmp_path / "qdq.onnx", samples, "minmax")
    assert read_model(tmp_path / "qdq.onnx").quantized
    for expected, found in run_both(NANODET, tmp_path / "qdq.onnx", BuildOptions()):
        assert np.abs(expected - found).mean() <= 0.1 * np.abs(expected).max()


def run_both(one: Path, other: Path, options: BuildOptions) -> list[tuple[Any, Any]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = read_model(one)
    sample = next(noise(model, usual_shapes(model, options), 1))
    results = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, sample)
        for path in (one, other)
    ]
    return list(zip(*results, strict=True))


def test_free_dimensions_of_one_name_are_told(here: Target, cache: Cache) -> None:
    with pytest.raises(BuildError, match=r"gives several free dimensions one name.*name them apart"):
        build(text_direction(), BuildOptions(precision="fp32", shapes={"x": profile(48, 192)}), here, cache)


def test_all_unsupported_nodes_are_named(here: Target, cache: Cache, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper  # noqa: PLC0415

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="fine"),
        helper.make_node("Frobnicate", ["a"], ["b"], name="strange", domain="com.acme"),
        helper.make_node("Bernoulli", ["b"], ["y"], name="dice"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["N", 4])], [value("y", TensorProto.FLOAT, ["N", 4])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(BuildError) as caught:
        build(tmp_path / "m.onnx", BuildOptions(precision="fp32"), here, cache)
    text = str(caught.value)
    assert "can't build 2 of 3 nodes: node 1 'strange' (Frobnicate): " in text
    assert "node 2 'dice' (Bernoulli): UNSUPPORTED_NODE" in text
    assert list(cache.tmp.iterdir()) == []


def test_options_without_effect_are_warned_of(here: Target, cache: Cache) -> None:
    options = BuildOptions(
        precision="fp32", precision_constraints="obey", hardware_compatibility="ampere_plus", tactic_sources=("CUBLAS",)
    )
    warnings = build(NANODET, options, here, cache).manifest.build.warnings
    assert [
        word
        for word in ("OBEY_PRECISION_CONSTRAINTS", "ampere_plus", "CUBLAS")
        if not any(word in line for line in warnings)
    ] == []


def test_a_missing_plugin_is_told(here: Target, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "plugin.so").write_bytes(b"no library")
    with pytest.raises(UnavailableError, match=r"plugin .*plugin\.so can't be loaded"):
        build(NANODET, BuildOptions(plugins=(str(tmp_path / "plugin.so"),)), here, cache)


def test_a_plan_out_of_the_cache_is_accepted_where_it_fits(here: Target, cache: Cache, tmp_path: Path) -> None:
    engine = build(NANODET, BuildOptions(precision="fp32"), here, cache)
    assert accept(engine.folder / "engine.plan", here).warnings == ()
    plan = tmp_path / "copy.engine"
    plan.write_bytes(engine.read())
    assert "no side-car" in accept(plan, here).warnings[0]
    plan.write_bytes(engine.read()[:-1])
    with pytest.raises(PlanError, match="should hold"):
        accept(plan, here)


def run_command(*arguments: str, cache: Cache) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeinfer", *arguments, "--cache-dir", str(cache.root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def hold_build(command: subprocess.Popen[str]) -> None:
    """Stops the process that builds as soon as it is there, so that it can't be done before something else happens."""
    end = time.monotonic() + 60
    while True:
        for child in psutil.Process(command.pid).children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if CHILD in child.cmdline():
                    child.suspend()
                    return
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_clean_cache_and_says_so(ending: int, rtx: Toolkit, cache: Cache) -> None:
    process = run_command("build", "nanodet-g", "--runtime", "tensorrt_rtx", "--precision", "fp32", cache=cache)
    hold_build(process)
    process.send_signal(ending)
    output = process.communicate()
    assert (process.returncode, output[1]) == (130, "edgeinfer: the build was interrupted; nothing is left of it\n")
    assert list(cache.tmp.iterdir()) == []
    assert list(cache.engines.iterdir()) == []


def test_where_there_is_only_tensorrt_rtx_it_is_taken_and_said(rtx: Toolkit, cache: Cache) -> None:
    if importlib.util.find_spec("tensorrt") or importlib.util.find_spec("tensorrt_bindings"):
        pytest.skip("TensorRT itself is here")
    said = f"edgeinfer: {rtx} is used, as TensorRT itself can't be loaded here\n"
    made = run_command("build", "nanodet-g", "--precision", "fp32", "--batch", "1", cache=cache)
    out, err = made.communicate()
    assert (made.returncode, err) == (0, said), out
    asked = run_command("engines", "explain", "nanodet-g", "--precision", "fp32", "--batch", "1", cache=cache)
    out, err = asked.communicate()
    assert (asked.returncode, err) == (0, said)
    assert "would be reused" in out


def test_two_commands_build_once(rtx: Toolkit, cache: Cache) -> None:
    both = [
        run_command("build", "nanodet-g", "--runtime", "tensorrt_rtx", "--precision", "fp32", "--json", cache=cache)
        for _ in range(2)
    ]
    shown = [json.loads(process.communicate()[0]) for process in both]
    assert len({item["manifest"]["build"]["finished_at"] for item in shown}) == 1
    assert len(cache.entries()) == 1


def test_int8_from_pictures(here: Target, cache: Cache, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(1)
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 255, (120, 200, 3), np.uint8))
    source = SampleSource(str(tmp_path))
    model = read_model(NANODET)
    assert [sample["images"].shape for sample in load(source, model, usual_shapes(model, BuildOptions()))] == [
        (1, 3, 416, 416)
    ] * 2
    task = make_task(NANODET, BuildOptions(precision="int8"), here, Extras(calibration=source))
    engine = ensure_task(task, cache, lambda _: None, threading.Event())
    assert "INT8" in engine.manifest.build.how


def test_no_space_for_the_plan_is_told(here: Target, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        cache = Cache(tmp_path / "cache")
        with pytest.raises(CacheError, match=r"no space left for the plan.*make room"):
            build(NANODET, BuildOptions(precision="fp32"), here, cache)
        assert list(cache.tmp.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)  # noqa: S607
