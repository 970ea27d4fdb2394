"""A report as tables on standard output: speed, what it takes, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgeinfer.bench.figures import Report, Row, Spread


def print_report(report: Report) -> None:
    """All tables."""
    where = report.machine
    click.echo(
        f"{where.model} on {where.backend} ({report.detail}), {where.cores} cores ({where.processor}), "
        f"{report.rounds} rounds of {report.frames} frames; median (min … max)"
    )
    if len(report.raw) > 1:
        _print_raw(report)
    click.echo("")
    rows = [("raw network", _show(report.raw_fps, 1), *[""] * 6)]
    rows += [(f"pipeline, {name}", *_figures(row)) for name, row in report.pipelines.items()]
    headings = ("", "fps", "share of raw", "CPU ms per frame", "dropped", "MB a source", "threads a source", "GPU MB")
    _print_table(headings, rows)
    for name, row in report.pipelines.items():
        if row.decoder:
            click.echo(f"{name}: decoded by {row.decoder}")
    click.echo("")
    stages = next(iter(report.pipelines.values())).stages_ms
    _print_table(
        ("ms, p50 / p95 / p99", *report.pipelines),
        [(stage, *(_times(row, stage) for row in report.pipelines.values())) for stage in stages],
    )


def _print_raw(report: Report) -> None:
    click.echo("")
    shapes = [(shape.split("x"), spread) for shape, spread in report.raw.items()]
    streams = list(dict.fromkeys(shape[0] for shape, _ in shapes))
    rates = {tuple(shape): f"{spread.median:.0f}" for shape, spread in shapes}
    batches = list(dict.fromkeys(shape[1] for shape, _ in shapes))
    _print_table(
        ("raw fps, batch", *(f"{number} streams" for number in streams)),
        [(batch, *(rates[number, batch] for number in streams)) for batch in batches],
    )
    for shape, engine in report.engines.items():
        if engine:
            click.echo(f"batch {shape}: {engine}")


def _figures(row: Row) -> tuple[str, ...]:
    return (
        _show(row.fps, 1),
        _show(row.ratio, 3) if row.ratio else "",
        _show(row.cpu_ms, 2),
        str(row.dropped),
        f"{row.source_mb.median:.1f}" if row.source_mb else "",
        f"{row.source_threads.median:.1f}" if row.source_threads else "",
        f"{row.gpu_mb.median:.0f}" if row.gpu_mb else "",
    )


def _times(row: Row, stage: str) -> str:
    return " / ".join(f"{row.stages_ms[stage][q].median:.1f}" for q in ("p50", "p95", "p99"))


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    for row in (headings, *rows):
        click.echo(
            "  ".join(cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)).rstrip()
        )


def _show(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.min:.{digits}f} … {spread.max:.{digits}f})"
