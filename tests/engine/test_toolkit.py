"""TensorRT's configuration, plugins, logger, and the reasons in its log."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeinfer.engine import diagnose, toolkit
from edgeinfer.engine.build import settings
from edgeinfer.engine.build.precision import PrecisionPlan
from edgeinfer.engine.errors import BuildError, BuildKilledError, PlanError, UnsafeError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.errors import UnavailableError, UsageError
from tests.engine.fakes import fake_toolkit


def configured(kit: Any, options: BuildOptions, strongly_typed: bool = False) -> list[str]:
    warnings: list[str] = []
    made = kit.trt.Builder(None)
    definition = made.create_network(0)
    definition._layers = [simulated_layer(kit, name) for name in ("conv_1", "conv_2", "relu")]
    definition._tensors, definition._inputs, definition._outputs = [simulated_tensor(kit, "x")], [("x", [1], "")], []
    target = settings.BuilderSetup(kit, made, definition, made.create_builder_config(), warnings.append)
    settings.configure(target, options, PrecisionPlan("", strongly_typed=strongly_typed), [])
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
