"""The same build on every TensorRT there is: each fake lacks what its version lacks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeinfer.engine.build import network, samples
from edgeinfer.engine.build.construct import Construction, make_builder
from edgeinfer.engine.build.precision import plan_precision
from edgeinfer.engine.build.protocol import BuildRequest, Built, Event, Step, Warned
from edgeinfer.engine.build.runner import Runner
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.errors import BuildError, BuildKilledError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.plan import read_header
from edgeinfer.engine.toolkit import Toolkit, make_logger
from edgeinfer.errors import InputError, UnavailableError, UsageError
from edgeinfer.models.onnxfile import read_model
from tests.engine.fakes import VERSIONS, FakeDevice, fake_toolkit, open_fake
from tests.engine.samples import NANODET

BY_FLAG = tuple(v for v in VERSIONS if v.startswith(("8", "10")))
BY_FILE = tuple(v for v in VERSIONS if v.startswith(("11", "rtx")))

onnx = pytest.importorskip("onnx")


def build(
    toolkit: Toolkit, model: Path, work: Path, precision: str = "fp32", **changes: Any
) -> tuple[Built, list[Event]]:
    options = changes.pop("options", BuildOptions())
    request = BuildRequest(
        model=str(model),
        flavour=toolkit.flavour,
        tensorrt=toolkit.version,
        options=options,
        precision=precision,  # type: ignore[arg-type]
        work=str(work),
        workspace=str(work),
        **{"verify": False, **changes},
    )
    events: list[Event] = []
    with ExitStack() as stack:
        return Construction(request, toolkit, events.append, stack, open_fake(toolkit)).run(), events


def warnings(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Warned))


@pytest.mark.parametrize("version", VERSIONS)
def test_builds_fp32(version: str, double: Path, tmp_path: Path) -> None:
    toolkit = fake_toolkit(version)
    built, events = build(toolkit, double, tmp_path, options=BuildOptions(precision="fp32", batch=(1, 2, 4)))
    header = read_header(tmp_path / "engine.plan")
    assert (header.flavour, header.version) == (toolkit.flavour, toolkit.version)
    plan = (tmp_path / "engine.plan").read_bytes()
    assert (built.plan_bytes, built.plan_sha256) == (len(plan), hashlib.sha256(plan).hexdigest())
    assert toolkit.trt.world.flags == {"-TF32"}
    assert toolkit.trt.world.config._profiles[0]._shapes == {"x": ((1, 4), (2, 4), (4, 4))}
    assert warnings(events) == ""


EVERYTHING = BuildOptions(
    batch=(2, 2, 2),
    pools={"WORKSPACE": 1 << 20, "TACTIC_DRAM": 1 << 21, "TACTIC_SHARED_MEMORY": 1 << 16},
    optimization_level=1,
    dla_core=0,
    sparsity=True,
    refit=True,
    version_compatible=True,
    exclude_lean_runtime=True,
    hardware_compatibility="ampere_plus",
    profiling_verbosity="detailed",
    precision_constraints="prefer",
    layer_precisions={"m*": "fp16"},
    io_formats={"x": "fp16:chw"},
    tactic_sources=("CUDNN", "JIT_CONVOLUTIONS"),
    max_aux_streams=0,
    avg_timing_runs=3,
)
LACKING = {
    "8.5.3": {
        "TACTIC_DRAM",
        "TACTIC_SHARED_MEMORY",
        "builder_optimization_level",
        "VERSION_COMPATIBLE",
        "EXCLUDE_LEAN_RUNTIME",
        "ampere_plus",
        "max_aux_streams",
    },
    "8.6.0": {"TACTIC_SHARED_MEMORY"},
    "11.4.0.106": {"PREFER_PRECISION_CONSTRAINTS", "CUDNN", "types of this network"},
    "rtx-1.7.1": {"PREFER_PRECISION_CONSTRAINTS", "CUDNN", "types of this network", "ampere_plus"},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_is_applied_or_warned_of(version: str, double: Path, tmp_path: Path) -> None:
    toolkit = fake_toolkit(version)
    world = toolkit.trt.world
    world.dla_cores = 1
    _, events = build(toolkit, double, tmp_path, "fp16", options=EVERYTHING)
    told = warnings(events)
    lacking = LACKING.get(version, set())
    assert {word for words in LACKING.values() for word in words if word in told} == lacking
    assert {"SPARSE_WEIGHTS", "REFIT", "GPU_FALLBACK"} <= world.flags
    for name in ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "PREFER_PRECISION_CONSTRAINTS"):
        assert (name in world.flags) != (name in lacking)
    assert set(world.pools) == {"WORKSPACE", "TACTIC_DRAM", "TACTIC_SHARED_MEMORY"} - lacking
    config = world.config
    assert (config.DLA_core, config.default_device_type, config.avg_timing_iterations) == (
        0,
        toolkit.trt.DeviceType.DLA,
        3,
    )
    assert config.profiling_verbosity is toolkit.trt.ProfilingVerbosity.DETAILED
    if "builder_optimization_level" not in lacking:
        assert (config.builder_optimization_level, config.max_aux_streams) == (1, 0)
    names = {source.name for source in toolkit.trt.TacticSource if config._tactics >> int(source) & 1}
    assert names == {"CUDNN", "JIT_CONVOLUTIONS"} - lacking
    tensor, layer = world.network.get_input(0), world.network.get_layer(0)
    assert (tensor.dtype, tensor.allowed_formats) == (toolkit.trt.DataType.HALF, 1)
    assert "types of this network" in lacking or layer.precision is toolkit.trt.DataType.HALF


@pytest.mark.parametrize("version", BY_FLAG)
def test_fp16_is_a_flag_up_to_10(version: str, double: Path, tmp_path: Path) -> None:
    toolkit = fake_toolkit(version)
    built, _ = build(toolkit, double, tmp_path, "fp16")
    assert "FP16" in toolkit.trt.world.flags
    assert "STRONGLY_TYPED" not in toolkit.trt.world.network._flags
    assert built.how == "builder flag FP16"


@pytest.mark.parametrize("version", BY_FILE)
def test_fp16_is_a_converted_file_from_11(version: str, double: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxconverter_common")
    toolkit = fake_toolkit(version)
    built, _ = build(toolkit, double, tmp_path, "fp16")
    network = toolkit.trt.world.network
    assert network._model.half
    assert "STRONGLY_TYPED" in network._flags
    assert not toolkit.trt.world.flags & {"FP16", "INT8"}
    assert built.how == "ONNX converted to FP16, strongly typed"


@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
@pytest.mark.parametrize("version", BY_FLAG)
def test_int8_is_calibrated_up_to_10(
    version: str, calibrator: str, double: Path, tmp_path: Path, inputs: SampleSource
) -> None:
    options = BuildOptions(batch=(1, 2, 4), calibrator=calibrator)  # type: ignore[arg-type]
    cache = tmp_path / "ranges"
    toolkit = fake_toolkit(version)
    built, _ = build(
        toolkit, double, tmp_path, "int8", options=options, calibration=inputs, calibration_cache=str(cache)
    )
    batches = [np.frombuffer(batch[0], np.float32) for batch in toolkit.trt.world.calibrated]
    assert [list(batch) for batch in batches] == [[n] * 8 for n in (1.0, 2.0, 3.0)]
    assert toolkit.trt.world.config._calibration_profile._shapes == {"x": ((2, 4),) * 3}
    assert {"INT8", "FP16"} <= toolkit.trt.world.flags
    assert cache.read_bytes() == b"ranges"
    assert calibrator[:3].lower() in built.how.lower()
    again = fake_toolkit(version)
    build(again, double, tmp_path, "int8", options=options, calibration=inputs, calibration_cache=str(cache))
    assert again.trt.world.calibrated == []


@pytest.mark.parametrize("version", BY_FILE)
def test_int8_is_a_quantized_file_from_11(version: str, double: Path, tmp_path: Path, inputs: SampleSource) -> None:
    pytest.importorskip("onnxruntime")
    toolkit = fake_toolkit(version)
    build(toolkit, double, tmp_path, "int8", calibration=inputs)
    assert toolkit.trt.world.network._model.quantized
    assert not toolkit.trt.world.flags & {"FP16", "INT8"}


@pytest.mark.parametrize("version", VERSIONS)
def test_int8_without_data_is_refused(version: str, double: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs inputs to calibrate with; give --calibration-data"):
        build(fake_toolkit(version), double, tmp_path, "int8")


@pytest.mark.parametrize("version", VERSIONS)
def test_files_with_types_of_their_own(version: str) -> None:
    trt = fake_toolkit(version).trt
    plain = read_model(NANODET)
    half = dataclasses.replace(plain, weight_types=frozenset({"float16"}))
    quantized = dataclasses.replace(plain, nodes=(dataclasses.replace(plain.nodes[0], operator="QuantizeLinear"),))
    typed = plan_precision(trt, half, "fp16")
    scaled = plan_precision(trt, quantized, "int8")
    assert (typed.convert, scaled.convert, scaled.calibrate) == ("", "", False)
    if version.startswith("8"):
        assert (typed.flags, typed.strongly_typed) == (("FP16",), False)
    else:
        assert (typed.flags, typed.strongly_typed) == ((), True)
    assert scaled.strongly_typed == (version in BY_FILE)
    assert scaled.flags == (() if version in BY_FILE else ("INT8", "FP16"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_full_precision_is_what_the_file_says_from_11_on(
    version: str, precision: Any, double: Path, tmp_path: Path
) -> None:
    toolkit = fake_toolkit(version)
    build(toolkit, double, tmp_path, precision, options=BuildOptions(precision=precision))
    assert ("STRONGLY_TYPED" in toolkit.trt.world.network._flags) == (version in BY_FILE)
    assert ("-TF32" in toolkit.trt.world.flags) == (precision == "fp32")


@pytest.mark.parametrize("version", VERSIONS)
def test_progress_where_there_is_a_monitor(version: str, double: Path, tmp_path: Path) -> None:
    _, events = build(fake_toolkit(version), double, tmp_path)
    fractions = [event.fraction for event in events if isinstance(event, Step) and event.fraction is not None]
    assert fractions == ([] if version.startswith("8") else [0.25, 0.5, 1.0])


@pytest.mark.parametrize("version", VERSIONS)
def test_all_unsupported_nodes_are_named(version: str, tmp_path: Path) -> None:
    toolkit = fake_toolkit(version)
    toolkit.trt.world.refused = {3: "no such resize", 7: ""}
    nodes = read_model(NANODET).nodes
    with pytest.raises(BuildError) as caught:
        build(toolkit, NANODET, tmp_path)
    text = str(caught.value)
    assert "can't build 2 of 193 nodes" in text
    assert f"node 3 {nodes[3].name!r} ({nodes[3].operator}): no such resize" in text
    assert f"node 7 {nodes[7].name!r} ({nodes[7].operator}): " in text
    for way in ("another opset", "--plugin", "--backend onnxruntime", "TensorRT provider"):
        assert way in text
    assert "\n" not in text


def test_one_plan_shares_its_profile_where_that_is_an_option(double: Path, tmp_path: Path) -> None:
    toolkit = fake_toolkit("8.6.0")
    build(toolkit, double, tmp_path)
    assert toolkit.trt.world.previews == {"PROFILE_SHARING_0806"}


@pytest.mark.parametrize(
    ("logged", "kind", "code"),
    [
        ("OutOfMemory (no further information)", BuildKilledError, 75),
        ("Could not find any implementation for node a", BuildError, 70),
        ("CUDA initialization failure with error: 100", UnavailableError, 69),
        ("CUDA initialization failure with error: 2", BuildKilledError, 75),
        ("CUDA initialization failure with error: 222", UnavailableError, 69),
    ],
)
def test_a_refused_build_says_why(logged: str, kind: type[Exception], code: int, double: Path, tmp_path: Path) -> None:
    toolkit = fake_toolkit("10.3.0")
    toolkit.trt.world.build_error = logged
    with pytest.raises(kind, match=r"building with TensorRT 10.3.0.30 failed") as caught:
        build(toolkit, double, tmp_path)
    assert type(caught.value) is kind
    assert caught.value.exit_code == code  # type: ignore[attr-defined]
    assert logged in str(caught.value)


@pytest.mark.parametrize(
    ("logged", "kind"),
    [
        ("CUDA initialization failure with error: 2", BuildKilledError),
        ("Error Code 1: Cuda Runtime (out of memory)", BuildKilledError),
        ("CUDA initialization failure with error: 35", UnavailableError),
        ("nothing that is known", UnavailableError),
    ],
)
def test_a_builder_that_can_not_be_made_says_why(
    logged: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, log = fake_toolkit("10.3.0"), deque([f"ERROR {logged}"])

    def none(*_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(kit.trt, "Builder", none)
    with pytest.raises(kind, match=r"making a builder of TensorRT 10\.3\.0\.30 failed") as caught:
        make_builder(kit, None, log)
    assert type(caught.value) is kind


def test_the_timing_cache_is_kept_and_a_foreign_one_replaced(double: Path, tmp_path: Path) -> None:
    path = tmp_path / "timing"
    for expected in (b"timed", b"timedtimed"):
        _, events = build(fake_toolkit("10.3.0"), double, tmp_path, timing_cache=str(path))
        assert path.read_bytes() == expected
        assert warnings(events) == ""
    path.write_bytes(b"junk")
    _, events = build(fake_toolkit("10.3.0"), double, tmp_path, timing_cache=str(path))
    assert "is of another machine" in warnings(events)
    assert path.read_bytes() == b"timed"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("gain", "state"), [(2.0, "passed"), (2.001, "passed"), (3.0, "exceeded"), (float("nan"), "exceeded")]
)
def test_the_engine_is_compared_with_onnx_runtime(
    version: str, gain: float, state: str, double: Path, tmp_path: Path, inputs: SampleSource
) -> None:
    pytest.importorskip("onnxruntime")
    toolkit = fake_toolkit(version)
    toolkit.trt.world.gain = gain
    built, _ = build(toolkit, double, tmp_path, verify=True, verification=inputs)
    check = built.verification
    assert check.state == state
    if gain != gain:  # noqa: PLR0124 (not a number)
        assert check.reason == "output y is infinite or no number where ONNX Runtime's is not, or the other way round"
    else:
        assert check.samples == 3
        assert check.outputs["y"].scale == 6.0
        assert check.outputs["y"].max_error == pytest.approx(abs(gain - 2) * 3, rel=1e-3)
        assert check.latency_ms is not None
    assert msgspec.json.decode(msgspec.json.encode(built), type=Built) == built


@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_profile_is_built_and_checked_too(
    version: str, double: Path, tmp_path: Path, inputs: SampleSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels are others: they may be wrong where the first profile's are right."""
    pytest.importorskip("onnxruntime")
    toolkit, options = fake_toolkit(version), BuildOptions(precision="fp32", batch=(1, 16, 16), single=True)
    built, _ = build(toolkit, double, tmp_path, verify=True, verification=inputs, options=options)
    shapes = [profile._shapes for profile in toolkit.trt.world.config._profiles]
    assert shapes == [{"x": ((1, 4), (16, 4), (16, 4))}, {"x": ((1, 4), (1, 4), (1, 4))}]
    assert (built.verification.state, built.verification.samples) == ("passed", 6)
    use = Runner.use_profile

    def spoil(self: Runner, number: int) -> None:
        use(self, number)
        toolkit.trt.world.gain = 3.0

    monkeypatch.setattr(Runner, "use_profile", spoil)
    built, _ = build(toolkit, double, tmp_path, verify=True, verification=inputs, options=options)
    assert built.verification.state == "exceeded"


def test_samples_fill_no_more_than_a_few_rows_of_a_large_batch(double: Path) -> None:
    """ONNX Runtime runs them on the CPU."""
    model = read_model(double)
    wanted = {(1, 16, 16): 4, (1, 2, 16): 2, (8, 16, 16): 8}
    found = {batch: samples.usual_shapes(model, BuildOptions(batch=batch))["x"][0] for batch in wanted}
    assert found == wanted


def test_inputs_to_verify_on_come_before_those_to_calibrate_with(
    double: Path, tmp_path: Path, inputs: SampleSource
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "others").mkdir()
    np.save(tmp_path / "others/0.npy", np.full(4, 50, np.float32))
    others = SampleSource(str(tmp_path / "others"))
    cases: list[tuple[dict[str, Any], tuple[str, int, float | None]]] = [
        ({"calibration": inputs, "verification": others}, (others.path, 1, 100.0)),
        ({"calibration": inputs}, (inputs.path, 3, 6.0)),
        ({}, ("noise", 4, None)),
    ]
    for given, expected in cases:
        check = build(fake_toolkit("10.3.0"), double, tmp_path, verify=True, **given)[0].verification
        assert (check.inputs, check.samples) == expected[:2]
        assert expected[2] is None or check.outputs["y"].scale == expected[2]


def test_an_engine_is_judged_by_its_own_precisions_tolerance(
    double: Path, tmp_path: Path, inputs: SampleSource
) -> None:
    pytest.importorskip("onnxruntime")
    for precision, gain, state in (
        ("fp16", 2.008, "passed"),
        ("fp16", 2.012, "exceeded"),
        ("fp32", 2.0015, "passed"),
        ("fp32", 2.003, "exceeded"),
        ("tf32", 2.003, "passed"),
    ):
        toolkit = fake_toolkit("10.3.0")
        toolkit.trt.world.gain = gain
        found, _ = build(toolkit, double, tmp_path, precision, verify=True, verification=inputs)
        assert found.verification.state == state, (precision, gain)


def test_without_a_device_the_check_is_skipped_with_the_reason(double: Path, tmp_path: Path) -> None:
    toolkit = fake_toolkit("10.3.0")
    request = BuildRequest(
        model=str(double),
        flavour="tensorrt",
        tensorrt=toolkit.version,
        options=BuildOptions(),
        precision="fp32",
        work=str(tmp_path),
        workspace=str(tmp_path),
    )

    def none() -> Any:
        raise UnavailableError("no GPU")

    with ExitStack() as stack:
        built = Construction(request, toolkit, lambda _: None, stack, none).run()
    assert (built.verification.state, built.verification.reason) == ("skipped", "no GPU")


def test_a_plan_of_another_version_is_refused_with_the_logs_reason(double: Path, tmp_path: Path) -> None:
    build(fake_toolkit("8.6.0"), double, tmp_path)
    other = fake_toolkit("10.3.0")
    log: list[str] = []

    class Logger(other.trt.ILogger):  # type: ignore[name-defined,misc]
        def log(self, severity: Any, text: str) -> None:
            log.append(f"{severity.name} {text}")

    with pytest.raises(Exception, match=r"another TensorRT version .*not compatible with this version") as caught:
        Runner(other, Logger(), log, (tmp_path / "engine.plan").read_bytes(), FakeDevice({}))  # type: ignore[arg-type]
    assert type(caught.value).__name__ == "PlanError"


def test_the_fakes_lack_what_the_versions_lack() -> None:
    old = fake_toolkit("8.6.0").trt
    builder = old.Builder(old.ILogger())
    with pytest.raises(AttributeError):
        builder.create_builder_config().progress_monitor = None
    with pytest.raises(AttributeError):
        fake_toolkit("11.4.0.106").trt.BuilderFlag.FP16  # noqa: B018
    with pytest.raises(TypeError):
        1 << old.BuilderFlag.FP16


def test_a_network_that_was_exchanged_since_is_not_built(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit = fake_toolkit(VERSIONS[0])
    digest = read_model(double).sha256
    build(toolkit, double, tmp_path, model_sha256=digest)
    with pytest.raises(InputError, match="files changed since the build was asked for"):
        build(toolkit, double, tmp_path, model_sha256="0" * 64)
    path = tmp_path / "m.onnx"
    path.write_bytes(double.read_bytes())
    parse = network.parse

    def exchanged(*args: Any) -> Any:
        path.write_bytes(double.read_bytes())
        return parse(*args)

    monkeypatch.setattr(network, "parse", exchanged)
    with pytest.raises(InputError, match="files changed since the build was asked for"):
        build(toolkit, path, tmp_path, model_sha256=digest)


def test_a_networks_names_do_not_swell_what_is_said(tmp_path: Path) -> None:
    helper = onnx.helper
    nodes = [helper.make_node("Thing", ["x"], [f"y{n}"], name=f"{n}" + "n" * 100_000) for n in range(60)]
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "y0")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    kit = fake_toolkit(VERSIONS[0])
    kit.trt.world.refused = dict.fromkeys(range(60), "no such thing")
    with pytest.raises(BuildError, match=r"can't build 60 of 60 nodes: .*; and 44 more") as caught:
        build(kit, path, tmp_path)
    assert len(caught.value.message) < 2000
    heard: list[str] = []
    logger = make_logger(kit.trt, deque(), heard.append)
    logger.log(kit.trt.ILogger.Severity.ERROR, "x" * 1_000_000)
    assert len(heard[0]) < 2100
