"""The parts of a build one by one: samples, conversion, checking, loading, the child's manners, what is asked of it."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeinfer.engine import diagnose, toolkit
from edgeinfer.engine.build import builder, calibrate, convert, samples, settings, verify, worker
from edgeinfer.engine.build.builder import BuildLimits
from edgeinfer.engine.build.precision import PrecisionPlan
from edgeinfer.engine.build.progress import BuildProgress
from edgeinfer.engine.build.protocol import Failed, Logged, Step, Warned
from edgeinfer.engine.build.runner import Runner
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, make_task
from edgeinfer.engine.errors import BuildError, BuildKilledError, CacheError, PlanError, ToleranceError, UnsafeError
from edgeinfer.engine.options import BuildOptions, Precision
from edgeinfer.engine.store import foreign
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.manifest import OutputError, Tolerance, Verification
from edgeinfer.errors import InputError, OutOfMemoryError, UnavailableError, UsageError
from tests.engine.fakes import FakeDevice, fake_toolkit
from tests.engine.quick import quickly
from tests.engine.samples import NANODET, ORIN, model
from tests.engine.test_ensure import task
from tests.engine.test_onnxfile import _network
from tests.engine.test_parts import write_plan
from tests.gpu import simulated

# --- samples


def test_files_are_picked_evenly(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for number in range(9):
        (tmp_path / f"{number}.npy").write_bytes(b"")
    (tmp_path / "below/z.JPG").write_bytes(b"")
    (tmp_path / "note.txt").write_bytes(b"")

    def picked(limit: int) -> list[str]:
        return [path.name for path in samples.files(SampleSource(str(tmp_path), limit=limit))]

    assert picked(10) == [*(f"{n}.npy" for n in range(9)), "z.JPG"]
    assert picked(4) == ["0.npy", "3.npy", "6.npy", "z.JPG"]
    assert picked(5) == ["0.npy", "2.npy", "4.npy", "6.npy", "8.npy"]
    assert picked(9) == ["0.npy", "2.npy", "4.npy", "6.npy", "8.npy"]
    assert SampleSource("/x").limit == 512
    assert [p.name for p in samples.files(SampleSource(str(tmp_path / "3.npy")))] == ["3.npy"]


def test_a_recording_longer_than_the_batch_is_cut_and_a_shorter_one_repeated(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3 * 192, dtype=np.float32).reshape(3, 3, 8, 8))
    for batch, firsts in ((1, [0]), (2, [0, 192]), (4, [0, 192, 384, 0])):
        (sample,) = samples.load(SampleSource(str(tmp_path)), model(), {"x": (batch, 3, 8, 8)})
        assert sample["x"][:, 0, 0, 0].tolist() == firsts


def test_a_recording_without_an_input_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(InputError, match=r"holds nothing for input 'x' of shape \(1, 3, 8, 8\)"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (1, 3, 8, 8)}))
    np.save(tmp_path / "a.npz.npy", np.zeros((0, 3, 8, 8)))
    (tmp_path / "a.npz").unlink()
    with pytest.raises(InputError, match=r"holds shape \(0, 3, 8, 8\)"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (1, 3, 8, 8)}))


def test_noise_is_smooth_and_the_same_every_time() -> None:
    shapes: dict[str, tuple[int, ...]] = {"x": (2, 3, 32, 32)}
    one, other = (list(samples.noise(model(), shapes, 3)) for _ in range(2))
    assert len(one) == 3
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a["x"], b["x"])
        assert a["x"].dtype == np.float32
        assert 0 <= a["x"].min() < a["x"].max() <= 1
        assert np.abs(np.diff(a["x"], axis=3)).mean() < 0.2, "raw noise differs by a third"
    assert not np.array_equal(one[0]["x"], one[1]["x"])


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8), (1, 3)])
def test_what_takes_no_pictures_is_told(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "p.png").write_bytes(b"x")
    assert samples.plain_input(model(), {"x": shape}) is None
    with pytest.raises(InputError, match="can't be the input of"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": shape}))


# --- conversion


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that doubles its input, with some bias."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper  # noqa: PLC0415

    value = helper.make_tensor_value_info
    two = helper.make_tensor("two", TensorProto.FLOAT, [4, 4], np.diag([2, 4, 8, 16]).astype(np.float32).ravel())
    nodes = [helper.make_node("MatMul", ["x", "two"], ["y"], name="matmul")]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 4])], [value("y", 1, ["N", 4])], [two])
    path = tmp_path_factory.mktemp("models") / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_half_file_keeps_its_inputs_and_outputs(double: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxconverter_common")
    convert.to_half(double, tmp_path / "half.onnx")
    made = onnx.load(tmp_path / "half.onnx")
    assert [v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)] == [1, 1]
    assert {t.data_type for t in made.graph.initializer} == {10}
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)


@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_a_quantized_file_is_symmetric_per_channel_and_signed(double: Path, tmp_path: Path, calibrator: str) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    inputs = [{"x": np.full((1, 4), n, np.float32)} for n in (1, 2, 3)]
    convert.to_qdq(double, tmp_path / "q.onnx", inputs, calibrator)
    made = onnx.load(tmp_path / "q.onnx")
    values = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    zeros = [v for name, v in values.items() if "zero_point" in name]
    assert zeros
    assert all(not v.any() and v.dtype == np.int8 for v in zeros)
    assert {v.size for name, v in values.items() if name.endswith("_scale")} == {1, 4}
    scale = float(values["x_scale"])
    assert scale == pytest.approx(3 / 127, rel=0.02), "of the largest input"


def test_the_calibrators_name_reaches_the_quantizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    seen: list[Any] = []
    monkeypatch.setattr(quantization, "quantize_static", lambda *_, **known: seen.append(known["calibrate_method"]))
    for name in ("entropy", "minmax"):
        convert.to_qdq(tmp_path, tmp_path, [], name)
    assert seen == [quantization.CalibrationMethod.Entropy, quantization.CalibrationMethod.MinMax]


def test_a_missing_converter_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"to convert that onnx is needed.*pip install 'edgeinfer\[build\]'"):
        convert.to_half(tmp_path, tmp_path)


def test_a_helper_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    calibrate.replace(path, b"one")
    calibrate.replace(path, b"two")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"two", [path])
    calibrate.replace(tmp_path / "none/x", b"lost")
    assert not (tmp_path / "none").exists()


# --- checking


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


# --- the builder's configuration


def configured(kit: Any, options: BuildOptions, strongly_typed: bool = False) -> list[str]:
    warnings: list[str] = []
    made = kit.trt.Builder(None)
    definition = made.create_network(0)
    definition._layers = [simulated_layer(kit, name) for name in ("conv_1", "conv_2", "relu")]
    definition._tensors, definition._inputs, definition._outputs = [simulated_tensor(kit, "x")], [("x", [1], "")], []
    target = settings.Target(kit, made, definition, made.create_builder_config(), warnings.append)
    settings.configure(target, options, PrecisionPlan("", strongly_typed=strongly_typed), {})
    return warnings


def simulated_layer(kit: Any, name: str) -> Any:
    layer = kit.trt.ILayer.__new__(kit.trt.ILayer)
    object.__setattr__(layer, "name", name)
    return layer


def simulated_tensor(kit: Any, name: str) -> Any:
    tensor = kit.trt.ITensor.__new__(kit.trt.ITensor)
    object.__setattr__(tensor, "name", name)
    return tensor


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_precisions": {"none*": "fp16"}}, r"none\*:fp16: no such layer or precision"),
        ({"layer_precisions": {"conv*": "fp17"}}, r"conv\*:fp17: no such layer or precision"),
        ({"io_formats": {"z": "fp16:chw"}}, "no input or output called 'z'; there are x"),
        ({"io_formats": {"x": "fp17:chw"}}, "fp17:chw of 'x' is not known to TensorRT 10.3.0.30"),
        ({"io_formats": {"x": "fp16:chw99"}}, "fp16:chw99 of 'x' is not known"),
    ],
)
def test_names_that_tensorrt_does_not_know_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        configured(fake_toolkit("10.3.0"), BuildOptions(**options))


def test_a_layer_precision_is_for_the_layers_that_match() -> None:
    kit = fake_toolkit("10.3.0")
    assert configured(kit, BuildOptions(layer_precisions={"conv*": "fp16", "*_2": "fp32"})) == []
    half, full = kit.trt.DataType.HALF, kit.trt.DataType.FLOAT
    assert [layer.precision for layer in kit.trt.world.network._layers] == [half, full, None]
    typed = fake_toolkit("10.3.0")
    (warning,) = configured(typed, BuildOptions(layer_precisions={"conv*": "fp16"}), strongly_typed=True)
    assert "layer precisions have no effect" in warning
    assert typed.trt.world.network._layers[0].precision is None


def test_nothing_is_set_that_was_not_asked_for() -> None:
    kit = fake_toolkit("10.3.0")
    assert configured(kit, BuildOptions()) == []
    world = kit.trt.world
    assert (world.flags, world.pools, world.previews) == (set(), {}, set())
    assert (world.config.DLA_core, world.config.default_device_type) == (-1, None)
    assert world.config.hardware_compatibility_level is None
    world.dla_cores = 2
    configured(kit, BuildOptions(dla_core=1, gpu_fallback=False))
    assert (world.config.DLA_core, "GPU_FALLBACK" in world.flags) == (1, False)


# --- loading TensorRT's plugins


def test_plugins_are_loaded_after_tensorrts_own_and_only_if_they_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "p.so"
    library.write_bytes(b"x")
    tmp_path.chmod(0o700)
    order: list[str] = []

    def load(path: str) -> object:
        order.append(path)
        return True

    registry = SimpleNamespace(load_library=load)
    trt = SimpleNamespace(
        init_libnvinfer_plugins=lambda logger, namespace: order.append(f"own {namespace!r}"),
        get_plugin_registry=lambda: registry,
    )
    kit = toolkit.Toolkit(trt, "tensorrt", (10, 3, 0, 30))
    toolkit.load_plugins(kit, None, (str(library),))
    assert order == ["own ''", str(library)]
    registry.load_library = lambda path: None
    with pytest.raises(UnavailableError, match=r"p\.so can't be loaded: TensorRT found no plugin in it"):
        toolkit.load_plugins(kit, None, (str(library),))
    trt.get_plugin_registry = SimpleNamespace
    with pytest.raises(UnavailableError, match=r"p\.so can't be loaded: .*(too short|invalid ELF)"):
        toolkit.load_plugins(kit, None, (str(library),))
    library.chmod(0o666)
    with pytest.raises(UnsafeError):
        toolkit.load_plugins(kit, None, (str(library),))


def test_each_flavour_has_its_own_library(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    lines = ["/l/libnvinfer.so.10", "/l/libnvinfer.so.10", "/l/libtensorrt_rtx.so.1", "/l/libnvinfer_plugin.so.10"]
    maps.write_text("\n".join(f"7f00-7f01 r-xp 0 08:01 1 {line}" for line in lines))
    assert list(toolkit.loaded_libraries("tensorrt", maps)) == [Path("/l/libnvinfer.so.10")]
    assert list(toolkit.loaded_libraries("tensorrt_rtx", maps)) == [Path("/l/libtensorrt_rtx.so.1")]
    (tmp_path / "lib").write_bytes(b"nothing")
    assert toolkit.library_version(tmp_path / "lib") is None
    with pytest.raises(UnavailableError, match="does not tell its build number"):
        toolkit.full_version("10.3.0", iter([tmp_path / "lib"]))


def test_the_logger_keeps_and_tells_lines_with_their_severity() -> None:
    trt, kept, told = fake_toolkit("10.3.0").trt, deque[str](maxlen=2), list[str]()
    logger = toolkit.make_logger(trt, kept, told.append)
    for name in ("VERBOSE", "INFO", "WARNING", "ERROR"):
        logger.log(trt.ILogger.Severity[name], f" {name.lower()} \n")
    assert told == ["INFO info", "WARNING warning", "ERROR error"]
    assert list(kept) == told[1:]
    assert toolkit.make_logger(trt, kept).log(trt.ILogger.Severity.ERROR, "x") is None


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("bad_alloc", BuildKilledError, "out of memory"),
        ("cudaError 35", UnavailableError, "driver too old"),
        ("cudaError 100", UnavailableError, "no GPU"),
        ("cudaError 1001", BuildError, "cudaError 1001"),
        ("stdVersionRead == kSERIALIZATION_VERSION", PlanError, "another TensorRT version"),
        ("not compatible with this hardware-compatible engine", PlanError, "another kind of GPU"),
        ("Plugin not found, are the plugin name, version, and namespace correct?", UnavailableError, "--plugin"),
        ("IRuntime::getEngineHostCodeAllowed", UnavailableError, "--version-compatible"),
        ("Input dimensions with this name", BuildError, "name them apart"),
        ("offset % rt::kPLAN_ALIGNMENT == 0", PlanError, "the plan is damaged"),
    ],
)
def test_reasons_are_read_out_of_the_log(line: str, kind: type[Exception], says: str) -> None:
    error = diagnose.explain(["INFO fine", f"ERROR {line}"], "it")
    assert type(error) is kind
    assert says in str(error)
    assert len(diagnose.explain([f"ERROR {'x' * 999}"], "it").message) < 300


# --- the child


def test_the_child_goes_first_where_memory_is_short_and_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Path, "write_text", lambda self, text: asked.append((str(self), text)))
    monkeypatch.setattr(os, "nice", asked.append)
    worker._be_the_first_to_go()
    assert asked == [("/proc/self/oom_score_adj", "1000"), 10]


def test_the_child_wants_the_tensorrt_that_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(toolkit, "load", lambda _: fake_toolkit("10.7.0"))
    asked = task().request("fp16", tmp_path, Cache(tmp_path / "c"))
    with pytest.raises(
        UnavailableError, match=r"10\.7\.0\.23 was found for the build, where 10\.3\.0\.30 was expected"
    ):
        worker._construct(asked, lambda _: None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "BuildKilledError"),
        (OSError(errno.ENOSPC, "full"), "CacheError"),
        (OSError(errno.EDQUOT, "full"), "CacheError"),
        (OSError(errno.EIO, "broken"), ""),
        (ValueError("odd"), ""),
    ],
)
def test_what_nobody_foresaw_is_told_too(error: BaseException, kind: str) -> None:
    assert worker._unforeseen(error).kind == kind


# --- its parent


def test_the_child_finds_this_package_and_keeps_to_its_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    asked = task().request("fp16", tmp_path, Cache(tmp_path / "c"))
    held = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    code = (
        "import os, sys, edgeinfer; os.fstat(int(sys.argv[1])); print(os.getcwd(), edgeinfer.__file__,"
        "os.environ['PYTHONPATH'], os.getsid(0) == os.getpid(), len(sys.stdin.readline()) > 100)"
    )
    with builder._child([sys.executable, "-c", code, str(held)], asked, held) as child:
        assert child.stdout is not None
        said = child.stdout.read().decode().split()
    os.close(held)
    root = Path(builder.__file__).parents[3]
    path = f"{root}{os.pathsep}/elsewhere"
    assert said == [str(tmp_path), str(root / "edgeinfer/__init__.py"), path, "True", "True"]
    assert (tmp_path / "stderr").read_bytes() == b""


def watched(*events: Any, estimate: float | None = None) -> tuple[list[BuildProgress], Any]:
    seen: list[BuildProgress] = []
    watch = builder._Watch(seen.append, estimate)
    for event in events:
        watch.take(event)
    return seen, watch


def test_progress_never_goes_back_and_a_step_without_a_number_keeps_it() -> None:
    seen, _ = watched(Step("a", 0.5), Step("b"), Step("c", 0.3), Step("d", 0.7))
    assert [(moment.phase, moment.fraction) for moment in seen] == [("a", 0.5), ("b", 0.5), ("c", 0.5), ("d", 0.7)]
    seen, _ = watched(Step("a"))
    assert [(moment.fraction, moment.estimate_s) for moment in seen] == [(None, None)]
    seen, _ = watched(Step("a"), estimate=1e-9)
    assert seen[0].fraction == 0.99


def test_what_the_child_says_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "edgeinfer.engine.build.builder"):
        _, watch = watched(Warned("w"), *[Logged(f"INFO {n}") for n in range(100)], Logged("ERROR e"), Failed("", "x"))
    assert watch.warnings == ["w"]
    assert (len(watch.log), watch.log[-1]) == (60, "ERROR e")
    assert watch.result == Failed("", "x")
    assert [r.levelname for r in caplog.records][-2:] == ["INFO", "ERROR"]


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        (Failed("ToleranceError", "m", "h"), ToleranceError),
        (Failed("CacheError", "m"), CacheError),
        (Failed("UnavailableError", "m"), UnavailableError),
        (Failed("OutOfMemoryError", "m"), OutOfMemoryError),
        (Failed("", "m"), BuildError),
    ],
)
def test_the_childs_error_is_raised_as_what_it_was(failed: Failed, kind: type[Exception], tmp_path: Path) -> None:
    _, watch = watched(failed)
    error = builder._failure(watch, 1, tmp_path)
    assert (type(error), error.message, error.hint) == (kind, "m", failed.hint)


def test_limits_of_memory_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    here, cancel = os.getpid(), threading.Event()
    monkeypatch.setattr(builder, "available_bytes", lambda: 100 << 20)
    builder._check(here, BuildLimits(memory_bytes=1 << 40, reserve_bytes=100 << 20), cancel, 1e9)
    with pytest.raises(BuildKilledError, match=r"and 1 MiB are allowed; raise --memory"):
        builder._check(here, BuildLimits(memory_bytes=1 << 20, reserve_bytes=None), cancel, 0)
    with pytest.raises(BuildKilledError, match="stopped with 100 MiB of memory left"):
        builder._check(here, BuildLimits(reserve_bytes=(100 << 20) + 1), cancel, 0)
    assert BuildLimits() == BuildLimits(memory_bytes=None, reserve_bytes=128 << 20, timeout_s=None)
    monkeypatch.setattr(builder, "_meminfo", lambda: {"MemTotal": 7})
    assert builder.total_memory_bytes() == 7
    assert builder.resident_bytes(1 << 30) == 0
    assert 1 << 20 < builder.resident_bytes(here) < 1 << 40


def test_a_kernel_that_does_not_say_what_is_free_stops_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_meminfo", dict)
    assert builder.available_bytes() == sys.maxsize


# --- what is asked of it


def test_the_request_names_its_caches_by_what_they_depend_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")

    def names(**changes: Any) -> tuple[str | None, str | None]:
        machine = msgspec.structs.replace(ORIN, **{k: v for k, v in changes.items() if k in ("gpu", "tensorrt")})
        options = BuildOptions(batch=changes.get("batch", (1, 1, 1)))
        asked = make_task(NANODET, options, machine).request("fp16", tmp_path / "w", cache)
        return asked.timing_cache, asked.calibration_cache

    plain = names()
    assert plain == names()
    assert Path(plain[0] or "").parent == cache.root / "timing"
    assert Path(plain[1] or "").parent == cache.root / "calibration"
    gpu, version, batch = names(gpu="Orin NX"), names(tensorrt=(10, 3, 0, 31)), names(batch=(1, 2, 2))
    assert len({plain[0], gpu[0], version[0]}) == 3
    assert batch[0] == plain[0]
    assert len({plain[1], version[1], batch[1]}) == 3
    own = make_task(
        NANODET, BuildOptions(), ORIN, Extras(timing_cache="/mine", verify=False, tolerance=Tolerance(1, 1))
    )
    asked = own.request("fp32", tmp_path / "w", cache)
    assert (asked.timing_cache, asked.verify, asked.tolerance) == ("/mine", False, Tolerance(1, 1))
    assert (asked.precision, asked.work, asked.workspace) == ("fp32", str(tmp_path / "w"), str(tmp_path))
    assert (asked.flavour, asked.tensorrt, asked.model) == ("tensorrt", (10, 3, 0, 30), str(NANODET))


def test_a_network_with_its_own_scales_needs_no_data(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    onnx.save(_network(onnx), path)
    (tmp_path / "a.npy").write_bytes(b"")
    given = Extras(calibration=SampleSource(str(tmp_path / "a.npy")))
    precisions: tuple[Precision, ...] = ("int8", "best")
    for precision in precisions:
        wanted = BuildOptions(precision=precision)
        plain, with_data = make_task(path, wanted, ORIN), make_task(path, wanted, ORIN, given)
        assert plain.key == with_data.key
        assert with_data.fields.calibration is None
    assert plain.precisions() == ("int8", "fp16", "fp32")


def test_best_tries_what_can_be_fastest_first(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    given = SampleSource(str(tmp_path))
    assert task("best").precisions() == ("fp16", "fp32")
    assert task("best", calibration=given).precisions() == ("int8", "fp16", "fp32")
    assert task("tf32").precisions() == ("tf32",)
    assert task("best", calibration=given).key != task("best").key


def test_the_latest_build_of_the_same_precision_tells_how_long(tmp_path: Path) -> None:
    from edgeinfer.engine.build.ensure import last_build_seconds  # noqa: PLC0415

    cache = Cache(tmp_path / "c")
    engine = quickly(cache, task("fp32"))
    assert last_build_seconds(cache, task("fp16")) == 1.5
    other = engine.manifest
    later = msgspec.structs.replace(other.build, finished_at="2999-01-01T00:00:00Z", seconds=9.0)
    from edgeinfer.engine.store.manifest import encode  # noqa: PLC0415

    (engine.folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(other, build=later)))
    quickly(cache, task("fp16"))
    assert last_build_seconds(cache, task("fp16")) == 1.5
    assert last_build_seconds(cache, task("fp32")) == 9.0
    renamed = dataclasses.replace(task("fp32"), model=dataclasses.replace(task().model, path=Path("other.onnx")))
    assert last_build_seconds(cache, renamed) is None


# --- plans from elsewhere


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("compute_capability", "7.2"),
        ("gpu", "Xavier"),
        ("sm_count", 16),
        ("integrated", False),
        ("os", "qnx"),
        ("arch", "x86_64"),
        ("l4t", "35.1"),
    ],
)
def test_a_plan_for_another_machine_is_refused_by_its_side_car(tmp_path: Path, name: str, theirs: Any) -> None:
    with pytest.raises(PlanError, match=f"built for {name.replace('_', ' ')} {theirs}, and here is"):
        foreign.accept(write_plan(tmp_path, **{name: theirs}), ORIN)


def test_what_a_side_car_does_not_say_is_not_held_against_the_plan(tmp_path: Path) -> None:
    assert foreign.accept(write_plan(tmp_path, l4t=None, gpu=None), ORIN).warnings == ()


def test_a_manifest_beside_the_plan_is_its_side_car_too(tmp_path: Path) -> None:
    path = write_plan(tmp_path, gpu="Xavier")
    (tmp_path / "m.engine.json").rename(tmp_path / "manifest.json")
    with pytest.raises(PlanError, match="built for gpu Xavier"):
        foreign.accept(path, ORIN)


def test_a_plan_without_a_version_is_of_unknown_version_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "old.engine"
    path.write_bytes(b"ptrt" + bytes(60))
    assert foreign.accept(path, ORIN).header.version is None
    with pytest.raises(PlanError, match="built by tensorrt of unknown version, and here is tensorrt_rtx"):
        foreign.accept(path, msgspec.structs.replace(ORIN, flavour="tensorrt_rtx"))


def test_an_engine_of_a_file_that_was_renamed_is_the_nearest(tmp_path: Path) -> None:
    from edgeinfer.engine.build.advice import advise  # noqa: PLC0415

    cache = Cache(tmp_path / "c")
    engine = quickly(cache, task())
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(NANODET.read_bytes())
    os.utime(engine.folder / "manifest.json", (100, 100))
    said = advise(make_task(renamed, BuildOptions(precision="fp32"), ORIN), cache).sentence
    assert f"engine {engine.key[:12]} differs in precision fp16 → fp32" in said
    assert advise(task(), cache).action == "reuse"
    assert engine.used_at == 100, "advice changes nothing"
    two = msgspec.structs.replace(ORIN, gpu="Orin NX", sm_count=4)
    near = quickly(cache, make_task(NANODET, BuildOptions(), two))
    three = make_task(NANODET, BuildOptions(), msgspec.structs.replace(two, l4t="36.4.4"))
    assert f"engine {near.key[:12]} differs in L4T" in advise(three, cache).sentence, "the one that differs least"
    foreign_one = dataclasses.replace(
        task(), model=model(path=Path("m.onnx")), fields=msgspec.structs.replace(task().fields, model="99" * 32)
    )
    assert "holds no engine of it" in advise(foreign_one, cache).sentence
