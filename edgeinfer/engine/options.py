"""What a caller may ask of a build. Plain data that travels to the child process and into the key."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from edgeinfer.errors import UsageError
from edgeinfer.models.onnxfile import OnnxModel, Tensor

Precision = Literal["fp32", "tf32", "fp16", "int8", "best"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "int8", "best")

Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]
"""The smallest, the usual and the largest shape of one input."""


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that changes which engine comes out; every field is part of its key.

    batch: smallest, usual and largest batch of every input whose first dimension is free.
    shapes: input → (min, opt, max), for inputs with other free dimensions; overrides `batch`.
    single: a second profile for single pictures, see `single_profiles`.
    pools: memory pool (WORKSPACE, TACTIC_DRAM, DLA_…) → bytes.
    io_formats: input or output → "dtype:format", for instance "fp16:chw16".
    layer_precisions: layer name, where * matches anything → fp32, fp16 or int8.
    plugins: shared libraries, loaded before the network is parsed.
    """

    precision: Precision = "fp16"
    batch: tuple[int, int, int] = (1, 1, 1)
    shapes: dict[str, Profile] = {}
    single: bool = False
    pools: dict[str, int] = {}
    optimization_level: int | None = None
    dla_core: int | None = None
    gpu_fallback: bool = True
    sparsity: bool = False
    refit: bool = False
    version_compatible: bool = False
    exclude_lean_runtime: bool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    profiling_verbosity: Literal["none", "layer_names_only", "detailed"] | None = None
    precision_constraints: Literal["none", "prefer", "obey"] = "none"
    layer_precisions: dict[str, str] = {}
    io_formats: dict[str, str] = {}
    tactic_sources: tuple[str, ...] | None = None
    max_aux_streams: int | None = None
    avg_timing_runs: int | None = None
    calibrator: Literal["entropy", "minmax"] = "entropy"
    plugins: tuple[str, ...] = ()


DLA_PRECISIONS = ("fp16", "int8", "best")
"""What a DLA computes in; of "best" the fastest of these."""


def check_dla(options: BuildOptions) -> None:
    """Raises UsageError for what no DLA does."""
    if options.dla_core is not None and options.precision not in DLA_PRECISIONS:
        raise UsageError(
            f"a DLA computes in fp16 and int8, not in {options.precision}", "--precision fp16, or leave out --dla"
        )


def profiles(model: OnnxModel, options: BuildOptions) -> dict[str, Profile]:
    """Input → (min, opt, max) for every input with a free dimension; empty for a static network. Raises UsageError."""
    unknown = options.shapes.keys() - {tensor.name for tensor in model.inputs}
    if unknown:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise UsageError(f"{model.path}: no input called {min(unknown)!r}", f"its inputs: {names}")
    found = {tensor.name: _profile(model, tensor, options) for tensor in model.inputs if -1 in tensor.shape}
    for name, (low, _, high) in found.items():
        if options.dla_core is not None and low != high:
            raise UsageError(
                f"{model.path}: input {name!r} from {format_shape(low)} to {format_shape(high)}: a DLA takes one shape",
                "name one batch, like --batch 4, and one shape for each input in --shapes",
            )
    return found


def single_profiles(options: BuildOptions, main: dict[str, Profile]) -> dict[str, Profile]:
    """The second profile: the shapes of the `main` one with a batch of 1, for which TensorRT then chooses kernels too.

    Empty where none is asked for, or the main profile takes no single picture, or nothing else; a DLA takes one shape.
    """
    alone = {name: tuple((1, *shape[1:]) for shape in profile) for name, profile in main.items()}
    takes_both = all(low[0] == 1 < high[0] for low, _, high in main.values())
    return alone if options.single and options.dla_core is None and takes_both else {}  # type: ignore[return-value]


def _profile(model: OnnxModel, tensor: Tensor, options: BuildOptions) -> Profile:
    if tensor.name in options.shapes:
        return _checked(model, tensor, options.shapes[tensor.name])
    if -1 in tensor.shape[1:]:
        shape = "x".join("?" if size < 0 else str(size) for size in tensor.shape)
        raise UsageError(
            f"{model.path}: input {tensor.name!r} is {shape}: more is free than the batch",
            f"give its shapes: --shapes {tensor.name}=MIN:OPT:MAX, each like {shape.replace('?', '1')}",
        )
    low, usual, high = ((batch, *tensor.shape[1:]) for batch in options.batch)
    return _checked(model, tensor, (low, usual, high))


def _checked(model: OnnxModel, tensor: Tensor, profile: Profile) -> Profile:
    where = f"{model.path}: shapes of input {tensor.name!r}"
    for shape in profile:
        if len(shape) != len(tensor.shape) or any(a not in {-1, b} for a, b in zip(tensor.shape, shape, strict=True)):
            raise UsageError(
                f"{where}: {format_shape(shape)} does not fit {format_shape(tensor.shape)}",
                "only dimensions shown as -1 may be chosen",
            )
    if any(not 1 <= low <= usual <= high for low, usual, high in zip(*profile, strict=True)):
        raise UsageError(f"{where}: min, opt and max must grow from 1 on", "write them as MIN:OPT:MAX")
    return profile


def usual_batches(largest: int, dla: bool = False, opt: int | None = None) -> tuple[int, int, int]:
    """The batches of an engine for a model that takes up to `largest` at once: min, opt, max. A DLA takes only that.

    `opt`, by default the largest, is what kernels are chosen for: under load that is what runs.
    """
    return (largest, largest, largest) if dla else (1, min(opt or largest, largest), largest)


def parse_batch(text: str) -> tuple[int, int, int]:
    """ "4" or "1:4:8" as (min, opt, max). Raises UsageError."""
    parts = text.split(":")
    if len(parts) not in {1, 3} or not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"batch {text!r} is neither a number nor MIN:OPT:MAX", "for instance --batch 1:4:8")
    low, usual, high = map(int, parts if len(parts) == 3 else parts * 3)
    if not low <= usual <= high:
        raise UsageError(f"batch {text!r} must grow from min to max", "for instance --batch 1:4:8")
    return low, usual, high


def parse_shapes(text: str) -> tuple[str, Profile]:
    """ "x=1x3x32x32:1x3x64x64:4x3x64x64", or one shape for all three, as (input, profile). Raises UsageError."""
    name, _, value = text.rpartition("=")
    shapes = [tuple(map(int, part.split("x"))) for part in value.split(":") if re.fullmatch(r"\d+(x\d+)*", part)]
    if not name or len(shapes) != value.count(":") + 1 or len(shapes) not in {1, 3}:
        raise UsageError(
            f"shapes {text!r} are not NAME=MIN:OPT:MAX", "for instance --shapes x=1x3x48x48:1x3x48x192:4x3x48x320"
        )
    low, usual, high = shapes if len(shapes) == 3 else shapes * 3
    return name, (low, usual, high)


def parse_size(text: str) -> int:
    """ "512M", "4G" or plain bytes, as bytes. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is no size", "write it like 512M or 4G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def format_shape(shape: Shape) -> str:
    """(1, 3, 416, 416) as "1x3x416x416"."""
    return "x".join(map(str, shape)) or "scalar"
