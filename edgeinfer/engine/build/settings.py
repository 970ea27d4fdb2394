"""From build options to TensorRT's builder configuration. What this TensorRT lacks is warned of, never passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from edgeinfer.engine.build.precision import PrecisionPlan
from edgeinfer.engine.options import BuildOptions, Profile
from edgeinfer.engine.toolkit import Toolkit, member, require_dla
from edgeinfer.errors import UsageError

Warn = Callable[[str], None]

DTYPES = {
    "fp32": "FLOAT",
    "fp16": "HALF",
    "bf16": "BF16",
    "int8": "INT8",
    "int32": "INT32",
    "uint8": "UINT8",
    "int64": "INT64",
    "bool": "BOOL",
}
FORMATS = {"chw": "LINEAR"}


@dataclass(frozen=True, slots=True)
class BuilderSetup:
    """What is being set up: a TensorRT, its builder, network and configuration."""

    toolkit: Toolkit
    builder: Any
    network: Any
    config: Any
    warn: Warn

    def lacks(self, what: str, option: str) -> None:
        """Warns that an option has no effect here."""
        self.warn(f"{self.toolkit} has no {what}: {option} has no effect")


def configure(
    target: BuilderSetup, options: BuildOptions, precision: PrecisionPlan, profiles: Sequence[dict[str, Profile]]
) -> None:
    """Applies everything but calibration, timing cache and progress. Raises UnavailableError or UsageError."""
    _flags(target, options, precision)
    _pools(target, options)
    _attributes(target, options)
    _tactics(target, options)
    _dla(target, options)
    _io_formats(target, options)
    _layers(target, options, precision)
    _profiles(target, profiles)


def _flags(target: BuilderSetup, options: BuildOptions, precision: PrecisionPlan) -> None:
    constraints = options.precision_constraints
    wanted = {
        **dict.fromkeys(precision.flags, "the precision"),
        "SPARSE_WEIGHTS": options.sparsity and "sparsity",
        "REFIT": options.refit and "refit",
        "VERSION_COMPATIBLE": options.version_compatible and "version compatibility",
        "EXCLUDE_LEAN_RUNTIME": options.exclude_lean_runtime and "exclusion of the lean runtime",
        "GPU_FALLBACK": options.dla_core is not None and options.gpu_fallback and "GPU fallback",
        f"{constraints.upper()}_PRECISION_CONSTRAINTS": constraints != "none" and "precision constraints",
    }
    for name, option in wanted.items():
        if option:
            _set_flag(target, name, str(option))
    if options.precision == "fp32":  # TF32 is on unless taken away
        target.config.clear_flag(target.toolkit.trt.BuilderFlag.TF32)


def _set_flag(target: BuilderSetup, name: str, option: str) -> None:
    flag = member(target.toolkit.trt.BuilderFlag, name)
    if flag is None:
        target.lacks(f"builder flag {name}", option)
    else:
        target.config.set_flag(flag)


def _pools(target: BuilderSetup, options: BuildOptions) -> None:
    for name, size in options.pools.items():
        pool = member(target.toolkit.trt.MemoryPoolType, name.upper())
        if pool is None:
            target.lacks(f"memory pool {name}", "its limit")
        else:
            target.config.set_memory_pool_limit(pool, size)


def _attributes(target: BuilderSetup, options: BuildOptions) -> None:
    verbosity = options.profiling_verbosity or ("detailed" if options.dla_core is not None else None)
    values = {
        "builder_optimization_level": options.optimization_level,
        "max_aux_streams": options.max_aux_streams,
        "avg_timing_iterations": options.avg_timing_runs,
        "profiling_verbosity": verbosity and member(target.toolkit.trt.ProfilingVerbosity, verbosity.upper()),
    }
    for name, value in values.items():
        if value is None:
            continue
        if hasattr(target.config, name):
            setattr(target.config, name, value)
        else:
            target.lacks(name, f"the value {value}")
    _hardware_compatibility(target, options.hardware_compatibility)


def _hardware_compatibility(target: BuilderSetup, level: str) -> None:
    value = member(getattr(target.toolkit.trt, "HardwareCompatibilityLevel", None), level.upper())
    if level == "none":
        return
    if value is None or target.toolkit.flavour == "tensorrt_rtx":
        target.lacks(f"hardware compatibility level {level}", "it")
    else:
        target.config.hardware_compatibility_level = value


def _tactics(target: BuilderSetup, options: BuildOptions) -> None:
    if options.tactic_sources is None:
        return
    mask = 0
    for name in options.tactic_sources:
        source = member(target.toolkit.trt.TacticSource, name.upper())
        if source is None:
            target.lacks(f"tactic source {name}", "naming it")
        else:
            mask |= 1 << int(source)
    target.config.set_tactic_sources(mask)


def _dla(target: BuilderSetup, options: BuildOptions) -> None:
    if options.dla_core is None:
        return
    require_dla(target.toolkit, options.dla_core, target.builder.num_DLA_cores)
    target.config.default_device_type = target.toolkit.trt.DeviceType.DLA
    target.config.DLA_core = options.dla_core


def _io_formats(target: BuilderSetup, options: BuildOptions) -> None:
    network = target.network
    tensors = [network.get_input(i) for i in range(network.num_inputs)] + [
        network.get_output(i) for i in range(network.num_outputs)
    ]
    by_name = {tensor.name: tensor for tensor in tensors}
    for name, wanted in options.io_formats.items():
        if name not in by_name:
            raise UsageError(f"io format: no input or output called {name!r}", f"there are {', '.join(by_name)}")
        _io_format(target, by_name[name], *wanted.partition(":")[::2])


def _io_format(target: BuilderSetup, tensor: Any, dtype: str, layout: str) -> None:
    trt = target.toolkit.trt
    data_type = member(trt.DataType, DTYPES.get(dtype, ""))
    layout_name = FORMATS.get(layout or "chw", layout.upper())
    tensor_format = member(trt.TensorFormat, layout_name)
    if data_type is None or tensor_format is None:
        raise UsageError(
            f"io format {dtype}:{layout} of {tensor.name!r} is not known to {target.toolkit}",
            "for instance fp16:chw or int8:chw32",
        )
    if not hasattr(tensor, "allowed_formats"):
        target.lacks("formats for inputs and outputs", f"the one of {tensor.name}")
        return
    tensor.dtype = data_type
    tensor.allowed_formats = 1 << int(tensor_format)


def _layers(target: BuilderSetup, options: BuildOptions, precision: PrecisionPlan) -> None:
    if not options.layer_precisions:
        return
    layers = [target.network.get_layer(i) for i in range(target.network.num_layers)]
    if precision.strongly_typed or not all(hasattr(layer, "precision") for layer in layers):
        target.warn(
            f"{target.toolkit} takes the types of this network from the ONNX file: layer precisions have no effect"
        )
        return
    for pattern, wanted in options.layer_precisions.items():
        data_type = member(target.toolkit.trt.DataType, DTYPES.get(wanted, ""))
        chosen = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if data_type is None or not chosen:
            raise UsageError(
                f"layer precision {pattern}:{wanted}: no such layer or precision",
                "for instance --layer-precision 'Conv_1*:fp32'",
            )
        for layer in chosen:
            layer.precision = data_type


def _profiles(target: BuilderSetup, profiles: Sequence[dict[str, Profile]]) -> None:
    if not profiles:
        return
    for profile in profiles:
        target.config.add_optimization_profile(make_profile(target.builder, profile))
    sharing = member(target.toolkit.trt.PreviewFeature, "PROFILE_SHARING_0806")
    if sharing is not None:  # several contexts on one profile; always on where the name is gone
        target.config.set_preview_feature(sharing, True)


def make_profile(builder: Any, profiles: dict[str, Profile]) -> Any:
    """An optimization profile of these shapes."""
    profile = builder.create_optimization_profile()
    for name, (low, usual, high) in profiles.items():
        profile.set_shape(name, low, usual, high)
    return profile
