"""A picture of how far an engine's outputs are from ONNX Runtime's: a row per output, beside what is let pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeinfer.engine.store.manifest import Manifest, OutputError
from edgeinfer.errors import InputError
from edgeinfer.pictures import charts
from edgeinfer.types import Image

WITHIN, BEYOND = (113, 204, 46), (60, 76, 231)
"""BGR."""
WIDTH, LEFT, TOP, BAR, GAP, BETWEEN, FOOT = 1100, 190, 112, 20, 14, 90, 40
MOST = 60
"""Outputs; of more the worst are drawn."""


@dataclass(frozen=True, slots=True)
class Shares:
    """An output's errors as parts of its largest value, which is what the tolerance is given in."""

    name: str
    max_error: float
    mean_error: float

    @staticmethod
    def of(name: str, error: OutputError) -> Shares:
        """Of an output that is 0 everywhere, any error is beyond all measure."""
        parts = (each / error.scale if error.scale else float(each > 0) for each in (error.max_error, error.mean_error))
        return Shares(name, *parts)


def draw_errors(engine: Manifest, path: Path) -> None:
    """Writes the picture as a PNG. Raises InputError where there is nothing to draw, or where it can't be written."""
    check = engine.verification
    rows = [Shares.of(name, error) for name, error in check.outputs.items()]
    if not rows:
        why = check.reason or "nothing was compared"
        raise InputError(
            f"engine {engine.key[:12]}: no errors are known: {why}",
            "`edgeinfer build --rebuild` compares it with ONNX Runtime, where that is installed",
        )
    rows = sorted(rows, key=lambda row: -row.max_error)[:MOST]
    bottom = TOP + len(rows) * (BAR + GAP)
    canvas = charts.blank(WIDTH, bottom + FOOT)
    version = ".".join(map(str, engine.fields.tensorrt))
    title = f"{engine.model_name}, {engine.build.precision}, TensorRT {version}: errors against ONNX Runtime"
    charts.text(canvas, title, (20, 34), charts.TITLE, WIDTH - 40)
    said = f"{check.state}: {check.samples} samples, {check.inputs}; the broken line is what is let pass"
    charts.text(canvas, said, (20, 58), room=WIDTH - 40)
    for index, row in enumerate(rows):
        charts.text(canvas, row.name, (20, _top(index) + BAR - 5), room=LEFT - 40)
    limits = (None, None) if check.tolerance is None else (check.tolerance.max_error, check.tolerance.mean_error)
    width = (WIDTH - LEFT - BETWEEN - 70) // 2
    _panel(canvas, "largest error, part of the largest value", [row.max_error for row in rows], limits[0], LEFT, width)
    left = LEFT + width + BETWEEN
    _panel(canvas, "mean error, part of the largest value", [row.mean_error for row in rows], limits[1], left, width)
    charts.save(canvas, path)


def _top(index: int) -> int:
    return TOP + index * (BAR + GAP)


def _panel(canvas: Image, title: str, values: list[float], limit: float | None, left: int, width: int) -> None:
    """The bars of one kind of error, on a scale that has the limit on it too."""
    bottom = _top(len(values))
    charts.text(canvas, title, (left, TOP - 22))
    scale = charts.ticks(max(*values, limit or 0.0, 0.0))
    per_share = width / scale[-1]
    for tick in scale:
        x = left + round(tick * per_share)
        charts.bar(canvas, (x, TOP - 6, x, bottom), charts.FAINT)
        charts.text_below(canvas, charts.shown(tick), (x, bottom + 18))
    for index, value in enumerate(values):
        end = left + round(value * per_share)
        colour = WITHIN if limit is None or value <= limit else BEYOND
        charts.bar(canvas, (left, _top(index), end, _top(index) + BAR), colour)
        charts.text(canvas, charts.shown(value), (end + 8, _top(index) + BAR - 5), charts.SMALL)
    if limit is not None:
        charts.mark(canvas, left + round(limit * per_share), TOP - 10, bottom)
