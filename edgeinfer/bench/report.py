"""A whole benchmark: rounds of every measurement in turn, so that a machine that changes its pace harms all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct, to_builtins

from edgeinfer.bench.clip import write_clip
from edgeinfer.bench.measure import Machine, PipelineRun, Spread, machine, pipeline_run, raw_fps
from edgeinfer.card import load_model
from edgeinfer.config import AUTO, FALLBACK, TENSORRT, Config, load_config
from edgeinfer.engines import choose
from edgeinfer.files import check_readable

LIVE_FRAMES = 150

Overrides = list[tuple[str, Any]]
Tell = Callable[[str], None]


class Row(Struct, frozen=True):
    """One way of feeding the pipeline. `ratio` is its fps over the raw fps of the same round."""

    source: str
    fps: Spread
    ratio: Spread | None
    cpu_ms: Spread
    dropped: int
    stages_ms: dict[str, dict[str, Spread]]


class Report(Struct, frozen=True):
    """Everything that `edgeinfer bench` measured."""

    machine: Machine
    rounds: int
    frames: int
    raw_fps: Spread
    pipelines: dict[str, Row]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        data: dict[str, Any] = to_builtins(self)
        return data


def benchmark(overrides: Overrides, clip: str | None, rounds: int, frames: int, tell: Tell) -> Report:
    """Runs the raw network, the pipeline from memory, from a file and from a 30 fps camera, `rounds` times in turn."""
    with tempfile.TemporaryDirectory(prefix="edgeinfer-bench-") as folder:
        if clip is None:
            tell("writing a clip")
            clip = str(Path(folder) / "demo.mp4")
            write_clip(Path(clip), frames)
        check_readable(Path(clip))
        overrides = [*overrides, ("backend.name", concrete_backend(overrides))]
        configs = _configs(overrides, clip, frames)
        raw, runs = [], {name: list[PipelineRun]() for name in configs}
        for number in range(1, rounds + 1):
            tell(f"round {number} of {rounds}: raw network")
            raw.append(raw_fps(configs["memory"], frames))
            for name, config in configs.items():
                tell(f"round {number} of {rounds}: pipeline, {name}")
                runs[name].append(pipeline_run(config))
        rows = {
            name: _row(str(configs[name].sources["bench"].uri), runs[name], None if name == "live" else raw)
            for name in configs
        }
        return Report(machine(runs["memory"][0]), rounds, frames, Spread.of(raw), rows)


def concrete_backend(overrides: Overrides) -> str:
    """The plugin that `auto` means here, so that all measurements are of the same one."""
    config = load_config(None, overrides)
    if config.backend.name != AUTO:
        return config.backend.name
    choice = choose(load_model(config.model.path, config.model.card, config.model.sha256), config)
    if choice.now is not None:
        choice.now.close()
    return FALLBACK if choice.later is None else TENSORRT


def _configs(overrides: Overrides, clip: str, frames: int) -> dict[str, Config]:
    common: Overrides = [("publish.bind", "tcp://127.0.0.1:*"), *overrides]
    sources: dict[str, tuple[dict[str, Any], int]] = {
        "memory": ({"uri": "edgeinfer.bench.memory:", "frames": frames}, frames),
        "file": ({"uri": clip}, frames),
        "live": ({"uri": "demo:"}, min(frames, LIVE_FRAMES)),
    }
    return {
        name: load_config(None, [*common, ("sources.bench", table), ("frames", limit)])
        for name, (table, limit) in sources.items()
    }


def _row(source: str, runs: list[PipelineRun], raw: list[float] | None) -> Row:
    stages = runs[0].stages_ms
    return Row(
        source=Path(source).name if "/" in source else source,
        fps=Spread.of([run.fps for run in runs]),
        ratio=Spread.of([run.fps / fps for run, fps in zip(runs, raw, strict=True)]) if raw else None,
        cpu_ms=Spread.of([run.cpu_ms for run in runs]),
        dropped=sum(run.dropped for run in runs),
        stages_ms={
            stage: {q: Spread.of([run.stages_ms[stage][q] for run in runs]) for q in stages[stage]} for stage in stages
        },
    )


def print_report(report: Report) -> None:
    """Two tables on standard output: speed, and where the time goes."""
    where = report.machine
    click.echo(
        f"{where.model} on {where.backend}, {where.cores} cores ({where.processor}), "
        f"{report.rounds} rounds of {report.frames} frames; median (min … max)"
    )
    rows = [("raw network", _show(report.raw_fps, 1), "", "", "")]
    for name, row in report.pipelines.items():
        ratio = _show(row.ratio, 3) if row.ratio else ""
        rows.append((f"pipeline, {name}", _show(row.fps, 1), ratio, _show(row.cpu_ms, 1), str(row.dropped)))
    _print_table(("", "fps", "share of raw", "CPU ms per frame", "dropped"), rows)
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
