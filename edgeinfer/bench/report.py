"""A whole benchmark: rounds of every measurement in turn, so that a machine that changes its pace harms all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from edgeinfer.bench.clip import write_clip
from edgeinfer.bench.figures import Feed, PipelineRun, Report, Spread, by_shape, table_row
from edgeinfer.bench.measure import pipeline_run, raw_run, testbed
from edgeinfer.config.card import load_model
from edgeinfer.config.paths import check_readable
from edgeinfer.config.settings import AUTO, FALLBACK, TENSORRT, Config, load_config
from edgeinfer.daemon.selection import choose

MEMORY = "edgeinfer.bench.memory:"
LIVE_FPS, LIVE_FRAMES = 30, 150
FEWEST_FRAMES = 20
CLIP_FRAMES = 600

Overrides = list[tuple[str, Any]]
Tell = Callable[[str], None]


class BenchPlan(Struct, frozen=True):
    """What to measure: `sources` are the numbers of sources to feed from memory, as fast as can be and as cameras."""

    clip: str | None
    sources: tuple[int, ...]
    rounds: int
    frames: int


def benchmark(overrides: Overrides, plan: BenchPlan, tell: Tell) -> Report:
    """Runs the raw network and the pipeline from memory, from a file and from 30 fps cameras, in turn, in rounds."""
    with tempfile.TemporaryDirectory(prefix="edgeinfer-bench-") as folder:
        clip = plan.clip
        if clip is None:
            tell("writing a clip")
            clip = str(Path(folder) / "demo.mp4")
            write_clip(Path(clip), min(plan.frames, CLIP_FRAMES))
        check_readable(Path(clip))
        overrides = [*overrides, ("backend.name", concrete_backend(overrides))]
        configs = _configs(overrides, clip, plan)
        first = next(iter(configs.values()))
        raw, runs = [], {name: list[PipelineRun]() for name in configs}
        for number in range(1, plan.rounds + 1):
            tell(f"round {number} of {plan.rounds}: raw network")
            raw.append(raw_run(first, plan.frames))
            for name, config in configs.items():
                tell(f"round {number} of {plan.rounds}: pipeline, {name}")
                runs[name].append(pipeline_run(config))
        rows = {name: table_row(_feed(config), runs[name], raw) for name, config in configs.items()}
        some, best = next(iter(runs.values()))[0], Spread.of([run.best for run in raw])
        return Report(testbed(some), some.detail, plan.rounds, plan.frames, best, by_shape(raw), rows)


def concrete_backend(overrides: Overrides) -> str:
    """The plugin that `auto` means here, so that all measurements are of the same one."""
    config = load_config(None, overrides)
    if config.backend.name != AUTO:
        return config.backend.name
    choice = choose(load_model(config.model.path, config.model.card, config.model.sha256), config, None)
    if choice.now is not None:
        choice.now.close()
    return FALLBACK if choice.later is None else TENSORRT


def _configs(overrides: Overrides, clip: str, plan: BenchPlan) -> dict[str, Config]:
    common: Overrides = [("publish.bind", "tcp://127.0.0.1:*"), *overrides]
    shown = dict[str, list[dict[str, Any]]]()
    for number in plan.sources:
        each = max(FEWEST_FRAMES, plan.frames // number)
        shown[_label("memory", number)] = [{"uri": MEMORY, "frames": each}] * number
    shown["file"] = [{"uri": clip}]
    for number in plan.sources:
        frames = min(plan.frames, LIVE_FRAMES)
        shown[_label("live", number)] = [{"uri": MEMORY, "frames": frames, "fps": LIVE_FPS}] * number
    return {
        name: load_config(
            None,
            [*common, ("frames", plan.frames), *((f"sources.s{i}", dict(table)) for i, table in enumerate(tables))],
        )
        for name, tables in shown.items()
    }


def _label(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind} ×{number}"


def _feed(config: Config) -> Feed:
    source = next(iter(config.sources.values()))
    uri = str(source.uri)
    live = getattr(source.options, "fps", None) is not None
    return Feed(Path(uri).name if "/" in uri else uri, len(config.sources), live)


def print_report(report: Report) -> None:
    """Two tables on standard output: speed, and where the time goes."""
    where = report.machine
    click.echo(
        f"{where.model} on {where.backend} ({report.detail}), {where.cores} cores ({where.processor}), "
        f"{report.rounds} rounds of {report.frames} frames; median (min … max)"
    )
    if len(report.raw) > 1:
        click.echo("")
        shapes = [(shape.split("x"), spread) for shape, spread in report.raw.items()]
        streams = list(dict.fromkeys(shape[0] for shape, _ in shapes))
        rates = {tuple(shape): f"{spread.median:.0f}" for shape, spread in shapes}
        batches = list(dict.fromkeys(shape[1] for shape, _ in shapes))
        _print_table(
            ("raw fps, batch", *(f"{number} streams" for number in streams)),
            [(batch, *(rates[number, batch] for number in streams)) for batch in batches],
        )
    click.echo("")
    rows = [("raw network", _show(report.raw_fps, 1), "", "", "", "")]
    for name, row in report.pipelines.items():
        memory = f"{row.gpu_mb.median:.0f}" if row.gpu_mb else ""
        ratio = _show(row.ratio, 3) if row.ratio else ""
        rows.append((f"pipeline, {name}", _show(row.fps, 1), ratio, _show(row.cpu_ms, 2), str(row.dropped), memory))
    _print_table(("", "fps", "share of raw", "CPU ms per frame", "dropped", "GPU MB"), rows)
    click.echo("")
    stages = next(iter(report.pipelines.values())).stages_ms
    _print_table(
        ("ms, p50 / p95 / p99", *report.pipelines),
        [
            (
                stage,
                *(
                    " / ".join(f"{row.stages_ms[stage][q].median:.1f}" for q in ("p50", "p95", "p99"))
                    for row in report.pipelines.values()
                ),
            )
            for stage in stages
        ],
    )


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    for row in (headings, *rows):
        click.echo(
            "  ".join(cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)).rstrip()
        )


def _show(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.min:.{digits}f} … {spread.max:.{digits}f})"
