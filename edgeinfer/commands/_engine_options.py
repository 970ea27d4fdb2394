"""Options that `build` and `engines explain` share, and what they amount to."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from edgeinfer.commands import _completing
from edgeinfer.commands._terminal import echo
from edgeinfer.config import card, strict
from edgeinfer.engine import machine, toolkit
from edgeinfer.engine.build import card_samples, samples
from edgeinfer.engine.build.builder import BuildLimits
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, Task, make_task
from edgeinfer.engine.build.tuned import tuned
from edgeinfer.engine.options import PRECISIONS, BuildOptions, parse_batch, parse_shapes, parse_size, usual_batches
from edgeinfer.engine.store.cache import Cache, default_root
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.manifest import Tolerance
from edgeinfer.errors import ConfigError, UsageError
from edgeinfer.models.onnxfile import read_model

Function = TypeVar("Function", bound=Callable[..., Any])
many: dict[str, Any] = {"multiple": True}

COMMON = [
    click.option("--cache-dir", type=click.Path(path_type=Path), help="The engine cache; the daemon's own by default."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
    click.option("--verbose", is_flag=True, help="Show TensorRT's log, and a traceback on errors."),
]

RUNTIME = click.option(
    "--runtime",
    type=click.Choice(list(toolkit.MODULES)),
    help="By default tensorrt, or tensorrt_rtx where only that can be loaded.",
)

BUILD = [
    click.argument("model", shell_complete=_completing.models),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="fp16",
        show_default=True,
        help="best: whatever is fastest.",
    ),
    click.option("--batch", metavar="MIN:OPT:MAX", help="Or N, for inputs with a free batch; up to the card's, or 1."),
    click.option(
        "--shapes", **many, metavar="NAME=MIN:OPT:MAX", help="For inputs with other free dimensions, like 1x3x416x416."
    ),
    click.option(
        "--profiles",
        metavar="N",
        type=click.IntRange(1, 2),
        default=1,
        show_default=True,
        help="2: with kernels chosen for single pictures too, where the batch is free from 1 on.",
    ),
    click.option("--workspace", metavar="SIZE", help="Limit of TensorRT's scratch memory, like 1G."),
    click.option("--pool", **many, metavar="NAME=SIZE", help="Limit of another memory pool, like TACTIC_DRAM=2G."),
    click.option(
        "--opt-level",
        metavar="N",
        type=click.IntRange(0, 5),
        help="0 builds fast, 5 tries most; TensorRT's default is 3.",
    ),
    click.option("--dla", type=click.IntRange(0), metavar="CORE", help="Run on this DLA core."),
    click.option(
        "--gpu-fallback/--no-gpu-fallback",
        default=True,
        help="Run layers that the DLA lacks on the GPU, as by default.",
    ),
    click.option("--sparsity", is_flag=True, help="Use 2:4 structured sparsity where the weights have it."),
    click.option("--refit", is_flag=True, help="Keep the weights exchangeable."),
    click.option("--version-compatible", is_flag=True, help="Loadable by later TensorRT of the same kind."),
    click.option("--exclude-lean-runtime", is_flag=True, help="Of a version-compatible plan."),
    click.option(
        "--hardware-compatibility",
        type=click.Choice(["none", "ampere_plus", "same_compute_capability"]),
        default="none",
        show_default=True,
        help="Other GPUs that the engine is to run on too.",
    ),
    click.option(
        "--profiling-verbosity",
        type=click.Choice(["none", "layer_names_only", "detailed"]),
        help="What the engine tells of its layers.",
    ),
    click.option(
        "--precision-constraints",
        type=click.Choice(["none", "prefer", "obey"]),
        default="none",
        show_default=True,
        help="How strictly --layer-precision is meant.",
    ),
    click.option("--layer-precision", **many, metavar="LAYER:PRECISION", help="Of one layer; LAYER may hold *."),
    click.option(
        "--io-format", **many, metavar="NAME=TYPE:FORMAT", help="Of an input or output, like images=fp16:chw."
    ),
    click.option("--tactic-source", **many, metavar="NAME", help="Use these sources only."),
    click.option(
        "--max-aux-streams", metavar="N", type=click.IntRange(0), help="Streams that may run beside the main one."
    ),
    click.option("--avg-runs", metavar="N", type=click.IntRange(1), help="Timings that TensorRT averages per tactic."),
    click.option("--plugin", **many, type=click.Path(), metavar="FILE", help="Shared library to load first."),
    click.option(
        "--calibration-data", type=click.Path(), metavar="DIR", help="Pictures or .npy/.npz inputs, for int8."
    ),
    click.option(
        "--calibrator",
        type=click.Choice(["entropy", "minmax"]),
        default="entropy",
        show_default=True,
        help="How ranges for int8 are found.",
    ),
    click.option("--mean", metavar="A,B,C", help="Taken from pictures' channels, 0 to 255; the card's, or 0."),
    click.option("--std", metavar="A,B,C", help="Pictures' channels are divided by it; the card's, or 255."),
    click.option("--order", type=click.Choice(["rgb", "bgr"]), help="Of the channels; the card's, or rgb."),
    click.option("--stretch", is_flag=True, help="Stretch pictures instead of letterboxing them."),
    RUNTIME,
]

VERIFY_AND_LIMITS = [
    click.option("--verify-data", type=click.Path(), metavar="DIR", help="Inputs to compare with ONNX Runtime on."),
    click.option("--no-verify", is_flag=True, help="Don't compare with ONNX Runtime."),
    click.option(
        "--tolerance", metavar="MAX,MEAN", help="Largest and mean error let pass, as parts of the largest value."
    ),
    click.option("--keep-anyway", is_flag=True, help="Keep an engine beyond the tolerance."),
    click.option("--timing-cache", type=click.Path(), metavar="FILE", help="Instead of the one in the engine cache."),
    click.option("--memory", metavar="SIZE", help="Stop the build beyond this resident size."),
    click.option("--timeout", type=float, metavar="SECONDS", help="Stop the build after this time."),
]


def options(*groups: list[Callable[[Function], Function]]) -> Callable[[Function], Function]:
    """Decorates a command with all options of the groups, in order."""
    return lambda function: functools.reduce(
        lambda f, option: option(f), reversed([o for group in groups for o in group]), function
    )


def open_cache(cache_dir: Path | None, verbose: bool, writing: bool = False) -> Cache:
    """The cache, to be looked at only; with `writing` made where it is missing, and swept of what killed builds left.

    With `verbose`, logs go to stderr from here on.
    """
    if verbose:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
    cache = Cache(cache_dir or default_root(os.environ), writing)
    if writing:
        cache.tidy()
    return cache


def keys(ctx: click.Context, _param: click.Parameter, incomplete: str) -> _completing.Items:
    """For a shell that completes: how the keys of what is in the engine cache begin."""
    folder = open_cache(ctx.params.get("cache_dir"), verbose=False).engines
    return _completing.fitting((path.name[:12] for path in folder.iterdir()) if folder.is_dir() else (), incomplete)


def find_model(name: str) -> tuple[Path, card.ModelCard | None]:
    """An ONNX file or a network that ships with the package, and its card, if it has one.

    Raises InputError and ConfigError.
    """
    path = Path(name)
    if name not in card.vendored() and path.is_file() and not path.with_suffix(".yaml").is_file():
        return path, None
    model = card.load_model(name)
    return model.path, model.card


def task_of(arguments: dict[str, Any], cache: Cache | None = None, with_extras: bool = False) -> Task:
    """The build that the options of `BUILD`, and of `VERIFY_AND_LIMITS` where asked for, describe on this machine.

    Where no batches are named, they are what was found best here, as the `cache` remembers it (see `tuned`).
    """
    model, described = find_model(arguments["model"])
    usual = usual_batches(described.max_batch) if described and arguments["dla"] is None else (1, 1, 1)
    wanted = build_options(arguments, usual)
    with_data = arguments["calibration_data"] or arguments.get("verify_data")
    plain = _plain_input(model, wanted) if with_data and not described else None
    prepared = changed_input(arguments, described.input if described else plain)
    here = this_machine(arguments)
    calibration = samples_of(arguments["calibration_data"], prepared)
    extras = extras_of(arguments, calibration, prepared, described) if with_extras else None
    task = make_task(model, wanted, here, extras or Extras(calibration=calibration))
    return task if arguments["batch"] or cache is None else tuned(task, cache)


def this_machine(arguments: dict[str, Any]) -> Target:
    """What is here, with the TensorRT that was asked for, or the one there is. Raises UnavailableError."""
    if arguments["runtime"]:
        return machine.detect(toolkit.load(arguments["runtime"]))
    found = toolkit.find()
    if found.flavour != "tensorrt":
        echo(f"edgeinfer: {found} is used, as TensorRT itself can't be loaded here", err=True)
    return machine.detect(found)


def build_options(a: dict[str, Any], usual: tuple[int, int, int]) -> BuildOptions:
    """The options of `BUILD` as one value, with the `usual` batches where none are named. Raises UsageError."""
    pools = {name: parse_size(size) for name, size in _pairs(a["pool"], "=", "--pool TACTIC_DRAM=2G")}
    if a["workspace"]:
        pools["WORKSPACE"] = parse_size(a["workspace"])
    return BuildOptions(
        precision=a["precision"],
        batch=parse_batch(a["batch"]) if a["batch"] else usual,
        shapes=dict(map(parse_shapes, a["shapes"])),
        single=a["profiles"] == 2,
        pools=pools,
        optimization_level=a["opt_level"],
        dla_core=a["dla"],
        gpu_fallback=a["gpu_fallback"],
        sparsity=a["sparsity"],
        refit=a["refit"],
        version_compatible=a["version_compatible"],
        exclude_lean_runtime=a["exclude_lean_runtime"],
        hardware_compatibility=a["hardware_compatibility"],
        profiling_verbosity=a["profiling_verbosity"],
        precision_constraints=a["precision_constraints"],
        layer_precisions=dict(_pairs(a["layer_precision"], ":", "--layer-precision 'Conv_1*:fp32'")),
        io_formats=dict(_pairs(a["io_format"], "=", "--io-format images=fp16:chw")),
        tactic_sources=a["tactic_source"] or None,
        max_aux_streams=a["max_aux_streams"],
        avg_timing_runs=a["avg_runs"],
        calibrator=a["calibrator"],
        plugins=tuple(str(Path(path).resolve()) for path in a["plugin"]),
    )


def extras_of(
    a: dict[str, Any],
    calibration: SampleSource | None,
    prepared: card.InputCard | None,
    described: card.ModelCard | None,
) -> Extras:
    """The options of `VERIFY_AND_LIMITS`. What has a card is compared on the package's photographs by default.

    Raises UsageError.
    """
    timing, photos = (
        a["timing_cache"],
        str(card_samples.PHOTOS) if described and card_samples.PHOTOS.is_dir() and not calibration else None,
    )
    return Extras(
        calibration=calibration,
        verify=not a["no_verify"],
        verification=samples_of(a["verify_data"] or photos, prepared),
        tolerance=_tolerance(a["tolerance"]) or (card_samples.tolerance_of(described) if described else None),
        keep_beyond_tolerance=a["keep_anyway"],
        timing_cache=timing and str(Path(timing).resolve()),
        limits=BuildLimits(memory_bytes=parse_size(a["memory"]) if a["memory"] else None, timeout_s=a["timeout"]),
    )


def samples_of(path: str | None, prepared: card.InputCard | None) -> SampleSource | None:
    """Inputs in a folder, prepared like this."""
    return SampleSource(str(Path(path).resolve()), prepared) if path else None


def changed_input(a: dict[str, Any], base: card.InputCard | None) -> card.InputCard | None:
    """`base` with what the options change of it; None where the network takes no pictures. Raises UsageError."""
    given = {
        "mean": a["mean"] and _numbers(a["mean"], 3, "--mean 103.53,116.28,123.675"),
        "std": a["std"] and _numbers(a["std"], 3, "--std 57.375,57.12,58.395"),
        "color": a["order"],
        "resize": "stretch" if a["stretch"] else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        return None if base is None else strict.convert({**msgspec.to_builtins(base), **changes}, card.InputCard)
    except ConfigError as error:
        raise UsageError(f"the input's {error.message}", error.hint) from None


def _plain_input(path: Path, wanted: BuildOptions) -> card.InputCard | None:
    model = read_model(path)
    return samples.plain_input(model, samples.usual_shapes(model, wanted))


def _pairs(texts: tuple[str, ...], separator: str, example: str) -> list[tuple[str, str]]:
    pairs = [text.partition(separator)[::2] if separator == "=" else text.rpartition(separator)[::2] for text in texts]
    for text, (name, value) in zip(texts, pairs, strict=True):
        if not name or not value:
            raise UsageError(f"{text!r} makes no sense", f"for instance {example}")
    return pairs


def _numbers(text: str, count: int, example: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise UsageError(f"{text!r} are not {count} numbers", f"for instance {example}")
    return numbers


def _tolerance(text: str | None) -> Tolerance | None:
    return Tolerance(*_numbers(text, 2, "--tolerance 0.05,0.005")) if text else None
