"""A picture of where a frame's time goes: a bar per way of feeding, a colour per stage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeinfer.bench.figures import Report, Row
from edgeinfer.errors import InputError

COLOURS = {
    "queue": (180, 180, 180),
    "preprocess": (219, 152, 52),
    "infer": (113, 204, 46),
    "decode": (18, 156, 243),
    "other": (182, 89, 155),
}
"""BGR."""
WIDTH, LEFT, TOP, BAR, GAP = 1100, 190, 90, 34, 22
FONT = cv2.FONT_HERSHEY_SIMPLEX
BLACK = (40, 40, 40)


def shares(row: Row) -> dict[str, float]:
    """Median milliseconds of each stage; the rest of capture → publish is waiting for the backend, and publishing."""
    medians = {stage: values["p50"].median for stage, values in row.stages_ms.items()}
    total = medians.pop("total")
    return {**medians, "other": max(0.0, total - sum(medians.values()))}


def draw(report: Report, path: Path) -> None:
    """Writes the picture as a PNG. Raises InputError where it can't be written."""
    bars = {name: shares(row) for name, row in report.pipelines.items()}
    longest = max(sum(stages.values()) for stages in bars.values()) or 1.0
    canvas = np.full((TOP + len(bars) * (BAR + GAP) + 20, WIDTH, 3), 255, np.uint8)
    _text(canvas, f"{report.machine.model} on {report.machine.backend}: capture to publish, median ms", (20, 34), 0.65)
    _legend(canvas)
    for index, (name, stages) in enumerate(bars.items()):
        top = TOP + index * (BAR + GAP)
        _text(canvas, name.replace("×", "x"), (20, top + BAR - 10), 0.55)
        _bar(canvas, stages, top, (WIDTH - LEFT - 110) / longest)
    if not cv2.imwrite(str(path), canvas):
        raise InputError(f"{path}: the plot can't be written", "a path in an existing folder that ends in .png")


def _legend(canvas: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    x = LEFT
    for stage, colour in COLOURS.items():
        cv2.rectangle(canvas, (x, 52), (x + 16, 68), colour, -1)
        _text(canvas, stage, (x + 24, 66), 0.5)
        x += 150


def _bar(
    canvas: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], stages: dict[str, float], top: int, scale: float
) -> None:
    start = 0.0
    for stage, milliseconds in stages.items():
        left, right = (round(LEFT + at * scale) for at in (start, start + milliseconds))
        cv2.rectangle(canvas, (left, top), (right, top + BAR), COLOURS[stage], -1)
        start += milliseconds
    _text(canvas, f"{start:.2f}", (round(LEFT + start * scale) + 8, top + BAR - 10), 0.5)


def _text(canvas: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], text: str, at: tuple[int, int], size: float) -> None:
    cv2.putText(canvas, text, at, FONT, size, BLACK, 1, cv2.LINE_AA)
