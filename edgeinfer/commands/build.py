"""`edgeinfer build`: makes a TensorRT engine of a model for this machine and keeps it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from edgeinfer.commands._drawing import console
from edgeinfer.commands._engine_options import (
    BUILD,
    COMMON,
    VERIFY_AND_LIMITS,
    find_model,
    open_cache,
    options,
    task_of,
)
from edgeinfer.commands._terminal import echo, echo_json, echo_lines
from edgeinfer.engine import toolkit
from edgeinfer.engine.build import verify
from edgeinfer.engine.build.advice import advise
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.precision import plan_precision
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.build.task import Task
from edgeinfer.engine.build.tuned import candidates, tunable
from edgeinfer.engine.options import format_shape
from edgeinfer.engine.store.cache import PLAN, Cache, CachedEngine
from edgeinfer.errors import UnavailableError, UsageError
from edgeinfer.guard.printable import one_line


@click.command("build")
@options(BUILD, VERIFY_AND_LIMITS, COMMON)
@click.option("--rebuild", is_flag=True, help="Build even where the cache has the engine.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--tune",
    metavar="N,N,…",
    help="Build for several usual batches, and keep what runs batches of these sizes fastest. Needs a GPU.",
)
def command(
    cache_dir: Path | None,
    as_json: bool,
    verbose: bool,
    rebuild: bool,
    dry_run: bool,
    tune: str | None,
    **arguments: Any,
) -> int:
    """Build the TensorRT engine of MODEL, an ONNX file or the name of a network that ships with edgeinfer.

    An engine that the cache holds already is not built again.
    """
    cache = open_cache(cache_dir, verbose, writing=not dry_run)
    task = task_of(arguments, cache, with_extras=True)
    sizes = [] if tune is None else _batches_to_tune(task, arguments["model"], tune)
    if dry_run:
        _print_plan(task, cache, as_json, [one.options.batch[1] for one in candidates(task)] if sizes else [])
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    had = cache.usable(task.key) is not None
    try:
        with _progress_bar() as on_progress:
            build = _builder(cache, on_progress, rebuild)
            if sizes:
                engine, had = _tuned(task, arguments["model"], sizes, cache, build)
            else:
                engine = build(task)
    except KeyboardInterrupt:
        echo("edgeinfer: the build was interrupted; nothing is left of it", err=True)
        return 130
    _print_engine(engine, as_json, reused=had and not rebuild)
    return 0


def _batches_to_tune(task: Task, name: str, text: str) -> list[int]:
    """The sizes of batches that count. Raises UsageError, also without a card, and UnavailableError without a GPU."""
    if task.machine.gpu is None:
        raise UnavailableError(
            "--tune measures engines, and there is no GPU that could run one", "see edgeinfer doctor"
        )
    if find_model(name)[1] is None:
        raise UsageError(f"{name}: no card says how pictures go in, so that it can't be tuned", "write NAME.yaml first")
    if not tunable(task):
        raise UsageError(f"{name}: nothing of this engine depends on the usual batch", "leave out --tune")
    low, _, high = task.options.batch
    sizes = [int(part) if part.isdecimal() and len(part) < 6 else 0 for part in text.split(",")]
    if not all(low <= size <= high for size in sizes):
        raise UsageError(f"--tune {text}: expected batches from {low} to {high}", f"for instance --tune {high}")
    return sizes


def _tuned(
    task: Task, name: str, sizes: Sequence[int], cache: Cache, build: Callable[[Task], CachedEngine]
) -> tuple[CachedEngine, bool]:
    """The fastest of several engines, and whether the cache had it."""
    from edgeinfer.backends import tensorrt  # noqa: PLC0415 (CUDA, where it is asked for)
    from edgeinfer.bench.tuning import tune  # noqa: PLC0415 (and OpenCV)

    _, card = find_model(name)
    assert card is not None  # noqa: S101 (looked for before)
    return tune(task, card.input, sizes, cache, tensorrt.measure, build, lambda line: echo(line, err=True))


def _builder(cache: Cache, on_progress: OnProgress, rebuild: bool) -> Callable[[Task], CachedEngine]:
    return lambda task: ensure_task(task, cache, on_progress, threading.Event(), rebuild)


@contextmanager
def _progress_bar() -> Iterator[OnProgress]:
    out = console(err=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[about]}", markup=False),
    )
    with Bar(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        row = bar.add_task("Starting", total=None, about="")

        def show(moment: BuildProgress) -> None:
            about = f"of about {moment.estimate_s:.0f} s" if moment.estimate_s else ""
            total = None if moment.fraction is None else 1.0
            bar.update(
                row, description=one_line(moment.phase), total=total, completed=moment.fraction or 0.0, about=about
            )

        yield show


def _print_engine(engine: CachedEngine, as_json: bool, reused: bool) -> None:
    record = engine.manifest
    if as_json:
        shown = {"reused": reused, "plan": str(engine.folder / PLAN), "manifest": msgspec.to_builtins(record)}
        echo_json(msgspec.json.encode(shown))
        return
    for warning in record.build.warnings:
        echo(f"warning: {warning}", err=True)
    verb = "in the cache already" if reused else f"built in {record.build.seconds:.1f} s"
    size = f"{record.plan_bytes / 2**20:.1f} MiB"
    echo(f"engine {engine.key[:12]} {verb}: {record.build.precision} ({record.build.how}), {size}")
    if record.build.dla is not None:
        echo(str(record.build.dla))
    for precision, note in record.build.candidates.items():
        echo(f"  {precision}: {note}")
    echo_lines(verify.describe(record.verification))
    echo(f"plan {engine.folder / PLAN}")


def _print_plan(task: Task, cache: Cache, as_json: bool, opts: Sequence[int]) -> None:
    found, advice = toolkit.load(task.machine.flavour), advise(task, cache)
    dla = task.options.dla_core is not None
    ways = {p: plan_precision(found.trt, task.model, p, task.options.calibrator, dla).how for p in task.precisions()}
    if as_json:
        shown = {
            "key": task.key,
            "action": advice.action,
            "reason": advice.sentence,
            "precision": ways,
            "fields": task.fields,
            "tune": opts,
        }
        echo_json(msgspec.json.encode(shown))
        return
    echo(advice.sentence)
    echo(f"with {found} on {task.machine.gpu or 'no known GPU'}, key {task.key[:12]}")
    if opts:
        echo(f"the fastest would be kept of those for usual batches of {', '.join(map(str, opts))}")
    for precision, way in ways.items():
        echo(f"{precision}: {way}")
    for name, profile in task.fields.profiles.items():
        also = ", and for single pictures" if name in task.fields.single else ""
        echo(f"{name}: {' : '.join(map(format_shape, profile))}{also}")
    for name, value in {**task.fields.flags, **task.fields.settings}.items():
        if name == "gpu_fallback" and task.options.dla_core is None:
            continue
        if value not in (None, False, {}, (), "none"):
            echo(f"{name.replace('_', ' ')}: {value}")
