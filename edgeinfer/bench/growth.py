"""A picture of what more sources cost: three panels over the number of sources, a line per way of feeding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from edgeinfer.bench.figures import Report, Row
from edgeinfer.pictures import charts
from edgeinfer.types import Image

COLOURS = {
    "memory": (182, 89, 155),
    "file": (60, 76, 231),
    "video": (219, 152, 52),
    "rtsp": (18, 156, 243),
    "live": (113, 204, 46),
}
"""BGR."""
PANELS = ("CPU ms per frame", "MB a source", "capture to publish, p99 ms")
WIDTH, HEIGHT, LEFT, TOP, FOOT, GAP = 1100, 430, 60, 90, 60, 70
Line = dict[int, float]
"""Number of sources → value."""


def lines(report: Report) -> dict[str, dict[str, Line]]:
    """Panel → way → its line; only of ways that were measured with several numbers of sources."""
    found: dict[str, dict[str, Line]] = {panel: {} for panel in PANELS}
    for label, row in report.pipelines.items():
        kind = label.partition(" ")[0]
        for panel, value in zip(PANELS, _values(row), strict=True):
            if kind in COLOURS and value is not None:
                found[panel].setdefault(kind, {})[row.sources] = value
    return {panel: {k: line for k, line in by_kind.items() if len(line) > 1} for panel, by_kind in found.items()}


def _values(row: Row) -> tuple[float, float | None, float]:
    memory = None if row.source_mb is None else row.source_mb.median
    return row.cpu_ms.median, memory, row.stages_ms["total"]["p99"].median


def draw_growth(report: Report, path: Path) -> None:
    """Writes the picture as a PNG. Raises InputError where it can't be written."""
    canvas = charts.blank(WIDTH, HEIGHT)
    title = f"{report.machine.model} on {report.machine.backend}: over the number of sources"
    charts.text(canvas, title, (20, 34), charts.TITLE, WIDTH - 40)
    width = (WIDTH - 30) // len(PANELS)
    found = lines(report)
    for index, (panel, by_kind) in enumerate(found.items()):
        _panel(canvas, panel, by_kind, LEFT + index * width, width - GAP)
    drawn = {kind for by_kind in found.values() for kind in by_kind}
    charts.key(canvas, {kind: colour for kind, colour in COLOURS.items() if kind in drawn}, (LEFT, 48))
    charts.save(canvas, path)


def _panel(canvas: Image, title: str, by_kind: Mapping[str, Line], left: int, width: int) -> None:
    charts.text(canvas, title, (left, TOP + 10))
    highest = max((max(line.values()) for line in by_kind.values()), default=0.0)
    panel = charts.Panel((left, TOP + 30, left + width, HEIGHT - FOOT), charts.ticks(highest))
    panel.draw_grid(canvas)
    numbers = sorted({number for line in by_kind.values() for number in line})
    span = math.log2(max(numbers, default=1)) or 1.0
    for number in numbers:
        x, y = panel.place(math.log2(number) / span, 0)
        charts.text_below(canvas, str(number), (x, y + 18))
    charts.text(canvas, "sources", (left, HEIGHT - FOOT + 40), charts.SMALL)
    for kind, line in by_kind.items():
        points = [(math.log2(number) / span, value) for number, value in sorted(line.items())]
        panel.draw_line(canvas, points, COLOURS[kind])
