"""A picture of where a frame's time goes: a bar per way of feeding, a colour per stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeinfer.bench.figures import Report, Row
from edgeinfer.errors import InputError, UsageError

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
WIDTH, LEFT, TOP, BAR, GAP = 1100, 190, 90, 34, 22
WHERE = "give a path in an existing folder that ends in .png"
FONT = cv2.FONT_HERSHEY_SIMPLEX
BLACK = (40, 40, 40)
Canvas = np.ndarray[Any, np.dtype[np.uint8]]
"""(H, W, 3) BGR."""


def shares(row: Row) -> dict[str, float]:
    """Median milliseconds of each stage. Of `queue` what is not `receive`, which is a part of it."""
    medians = {stage: row.stages_ms[stage]["p50"].median for stage in COLOURS if stage in row.stages_ms}
    return {**medians, "queue": max(0.0, medians["queue"] - medians.get("receive", 0.0))}


def draw(report: Report, path: Path) -> None:
    """Writes the picture as a PNG. Raises InputError where it can't be written."""
    bars = {name: shares(row) for name, row in report.pipelines.items()}
    longest = max(sum(stages.values()) for stages in bars.values()) or 1.0
    canvas = np.full((TOP + len(bars) * (BAR + GAP) + 20, WIDTH, 3), 255, np.uint8)
    text(canvas, f"{report.machine.model} on {report.machine.backend}: capture to publish, median ms", (20, 34), 0.65)
    _legend(canvas)
    for index, (name, stages) in enumerate(bars.items()):
        top = TOP + index * (BAR + GAP)
        text(canvas, name.replace("×", "x"), (20, top + BAR - 10), 0.55)
        _bar(canvas, stages, top, (WIDTH - LEFT - 110) / longest)
    save(canvas, path)


def check_place(path: Path) -> None:
    """Raises UsageError where no picture can be written, before hours of measuring end there."""
    if not cv2.haveImageWriter(str(path)) or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: no plot can be written there", WHERE)


def save(canvas: Canvas, path: Path) -> None:
    """Writes a picture. Raises InputError."""
    try:
        written = cv2.imwrite(str(path), canvas)
    except cv2.error:
        written = False
    if not written:
        raise InputError(f"{path}: the plot can't be written", WHERE)


def _legend(canvas: Canvas) -> None:
    x = LEFT
    for stage, colour in COLOURS.items():
        cv2.rectangle(canvas, (x, 52), (x + 16, 68), colour, -1)
        text(canvas, stage, (x + 24, 66), 0.5)
        x += 120


def _bar(canvas: Canvas, stages: dict[str, float], top: int, scale: float) -> None:
    start = 0.0
    for stage, milliseconds in stages.items():
        left, right = (round(LEFT + at * scale) for at in (start, start + milliseconds))
        cv2.rectangle(canvas, (left, top), (right, top + BAR), COLOURS[stage], -1)
        start += milliseconds
    text(canvas, f"{start:.2f}", (round(LEFT + start * scale) + 8, top + BAR - 10), 0.5)


def text(canvas: Canvas, words: str, at: tuple[int, int], size: float) -> None:
    """Writes a line; `at` is the left end of its base line."""
    cv2.putText(canvas, words, at, FONT, size, BLACK, 1, cv2.LINE_AA)
