"""A picture of where a frame's time goes: a bar per way of feeding, a colour per stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeinfer.bench.figures import Report, Row
from edgeinfer.pictures import charts
from edgeinfer.types import Image

COLOURS = {
    "receive": (120, 120, 120),
    "queue": (180, 180, 180),
    "preprocess": (219, 152, 52),
    "wait": (160, 220, 160),
    "infer": (113, 204, 46),
    "decode": (18, 156, 243),
    "publish": (182, 89, 155),
}
"""BGR."""
WIDTH, LEFT, RIGHT, TOP, BAR, GAP, FOOT = 1100, 190, 110, 90, 34, 22, 40


def shares(row: Row) -> dict[str, float]:
    """Median milliseconds of each stage. Of `queue` what is not `receive`, which is a part of it."""
    medians = {stage: row.stages_ms[stage]["p50"].median for stage in COLOURS if stage in row.stages_ms}
    return {**medians, "queue": max(0.0, medians["queue"] - medians.get("receive", 0.0))}


def draw(report: Report, path: Path) -> None:
    """Writes the picture as a PNG. Raises InputError where it can't be written."""
    bars = {name: shares(row) for name, row in report.pipelines.items()}
    scale = charts.ticks(max(sum(stages.values()) for stages in bars.values()), 8)
    bottom = TOP + len(bars) * (BAR + GAP)
    canvas = charts.blank(WIDTH, bottom + FOOT)
    title = f"{report.machine.model} on {report.machine.backend}: capture to publish, median ms"
    charts.text(canvas, title, (20, 34), charts.TITLE, WIDTH - 40)
    charts.key(canvas, COLOURS, (LEFT, 52))
    per_ms = (WIDTH - LEFT - RIGHT) / scale[-1]
    for value in scale:
        x = round(LEFT + value * per_ms)
        charts.bar(canvas, (x, TOP - 8, x, bottom), charts.FAINT)
        charts.text_below(canvas, charts.shown(value), (x, bottom + 18))
    for index, (name, stages) in enumerate(bars.items()):
        top = TOP + index * (BAR + GAP)
        charts.text(canvas, name, (20, top + BAR - 10), 0.55, LEFT - 30)
        _bar(canvas, stages, top, per_ms)
    charts.save(canvas, path)


def _bar(canvas: Image, stages: Mapping[str, float], top: int, per_ms: float) -> None:
    start = 0.0
    for stage, milliseconds in stages.items():
        left, right = (round(LEFT + at * per_ms) for at in (start, start + milliseconds))
        charts.bar(canvas, (left, top, right, top + BAR), COLOURS[stage])
        start += milliseconds
    charts.text(canvas, f"{start:.2f}", (round(LEFT + start * per_ms) + 8, top + BAR - 10))
