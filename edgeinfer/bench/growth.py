"""A picture of what more sources cost: three panels over the number of sources, a line per way of feeding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from edgeinfer.bench.figures import Report, Row
from edgeinfer.bench.plot import BLACK, Canvas, save, text

COLOURS = {
    "memory": (182, 89, 155),
    "file": (60, 76, 231),
    "video": (219, 152, 52),
    "rtsp": (18, 156, 243),
    "live": (113, 204, 46),
}
"""BGR."""
PANELS = ("CPU ms per frame", "MB a source", "capture to publish, p99 ms")
WIDTH, HEIGHT, LEFT, TOP, FOOT, GAP = 1100, 420, 60, 90, 50, 70
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
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    text(canvas, f"{report.machine.model} on {report.machine.backend}: over the number of sources", (20, 34), 0.65)
    width = (WIDTH - LEFT - 30) // len(PANELS)
    for index, (panel, by_kind) in enumerate(lines(report).items()):
        _panel(canvas, panel, by_kind, LEFT + index * width, width - GAP)
    for index, (kind, colour) in enumerate(COLOURS.items()):
        cv2.rectangle(canvas, (LEFT + index * 120, 48), (LEFT + index * 120 + 16, 64), colour, -1)
        text(canvas, kind, (LEFT + index * 120 + 24, 62), 0.5)
    save(canvas, path)


def _panel(canvas: Canvas, title: str, by_kind: Mapping[str, Line], left: int, width: int) -> None:
    text(canvas, title, (left, TOP + 10), 0.5)
    top, bottom = TOP + 30, HEIGHT - FOOT
    cv2.rectangle(canvas, (left, top), (left + width, bottom), BLACK, 1)
    highest = max((max(line.values()) for line in by_kind.values()), default=0.0) or 1.0
    numbers = sorted({number for line in by_kind.values() for number in line})
    span = math.log2(max(numbers, default=1)) or 1.0

    def place(number: int, value: float) -> tuple[int, int]:
        return left + round(math.log2(number) / span * width), bottom - round(
            max(value, 0.0) / highest * (bottom - top)
        )

    text(canvas, f"{highest:.1f}", (left - 48, top + 6), 0.4)
    for number in numbers:
        text(canvas, str(number), (place(number, 0)[0] - 6, bottom + 18), 0.4)
    for kind, line in by_kind.items():
        points = np.array([place(number, value) for number, value in sorted(line.items())], np.int32)
        cv2.polylines(canvas, [points], False, COLOURS[kind], 2, cv2.LINE_AA)
