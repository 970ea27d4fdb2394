"""What plots are drawn with: a white canvas, text, bars, lines over a grid, keys to the colours, and the file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgeinfer.errors import InputError, UsageError
from edgeinfer.pictures import lettering
from edgeinfer.pictures.lettering import Bgr
from edgeinfer.types import Image

INK: Bgr = (40, 40, 40)
FAINT: Bgr = (225, 225, 225)
TITLE, PLAIN, SMALL = 0.65, 0.5, 0.4
"""Sizes of letters."""
WHERE = "give a path in an existing folder that ends in .png"
Area = tuple[int, int, int, int]
"""x1 y1 x2 y2 in pixels."""


def blank(width: int, height: int) -> Image:
    """A white canvas."""
    return np.full((height, width, 3), 255, np.uint8)


def text(canvas: Image, words: str, at: tuple[int, int], size: float = PLAIN, room: int | None = None) -> int:
    """Writes a line whose base line begins at `at`, within `room` pixels. Returns where it ends."""
    line = lettering.writable(words)
    line = line if room is None else lettering.shortened(line, room, size)
    lettering.write(canvas, line, at, size, INK)
    return at[0] + lettering.width(line, size)


def text_left_of(canvas: Image, words: str, at: tuple[int, int], size: float = SMALL) -> None:
    """Writes a line that ends at `at`."""
    line = lettering.writable(words)
    lettering.write(canvas, line, (at[0] - lettering.width(line, size), at[1]), size, INK)


def text_below(canvas: Image, words: str, at: tuple[int, int], size: float = SMALL) -> None:
    """Writes a line whose base line has its middle at `at`."""
    line = lettering.writable(words)
    lettering.write(canvas, line, (at[0] - lettering.width(line, size) // 2, at[1]), size, INK)


def key(canvas: Image, colours: Mapping[str, Bgr], at: tuple[int, int]) -> None:
    """What each colour stands for, in a row; `at` is its upper left corner."""
    x, y = at
    for name, colour in colours.items():
        bar(canvas, (x, y, x + 16, y + 16), colour)
        x = text(canvas, name, (x + 24, y + 14)) + 28


def bar(canvas: Image, area: Area, colour: Bgr) -> None:
    """A filled rectangle, its edges part of it."""
    cv2.rectangle(canvas, area[:2], area[2:], colour, -1)


def mark(canvas: Image, x: int, top: int, bottom: int, colour: Bgr = INK) -> None:
    """A broken line downwards: a limit."""
    for y in range(top, bottom, 8):
        cv2.line(canvas, (x, y), (x, min(y + 4, bottom)), colour, 2)


def ticks(highest: float, most: int = 5) -> list[float]:
    """0 and round numbers (1, 2, 5, 10, …) up to `highest` at least; no more than `most` above 0."""
    if not highest > 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    rough = highest / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor * most >= highest * (1 - 1e-9))
    return [step * number for number in range(math.ceil(highest / step * (1 - 1e-9)) + 1)]


def shown(value: float) -> str:
    """A number on an axis or beside a bar: three digits that count."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


@dataclass(frozen=True, slots=True)
class Panel:
    """An area with a scale upwards from 0, and places to the right given as shares of its width."""

    area: Area
    scale: Sequence[float]

    def place(self, share: float, value: float) -> tuple[int, int]:
        """Where a value is drawn."""
        x1, y1, x2, y2 = self.area
        return x1 + round(share * (x2 - x1)), y2 - round(min(max(value / self.scale[-1], 0.0), 1.0) * (y2 - y1))

    def draw_grid(self, canvas: Image) -> None:
        """Lines at the scale's numbers, and the numbers."""
        for value in self.scale:
            start, end = self.place(0, value), self.place(1, value)
            cv2.line(canvas, start, end, INK if value == 0 else FAINT, 1)
            text_left_of(canvas, shown(value), (start[0] - 8, start[1] + 4))

    def draw_line(self, canvas: Image, points: Sequence[tuple[float, float]], colour: Bgr) -> None:
        """A line through (share of the width, value), with a dot at each."""
        places = [self.place(share, value) for share, value in points]
        cv2.polylines(canvas, [np.array(places, np.int32)], False, colour, 2, cv2.LINE_AA)
        for place in places:
            cv2.circle(canvas, place, 4, colour, -1, cv2.LINE_AA)


def check_place(path: Path) -> None:
    """Raises UsageError where no picture can be written: before hours of measuring end there."""
    if not cv2.haveImageWriter(str(path)) or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: no plot can be written there", WHERE)


def save(canvas: Image, path: Path) -> None:
    """Writes the picture. Raises InputError."""
    try:
        written = cv2.imwrite(str(path), canvas)
    except cv2.error:
        written = False
    if not written:
        raise InputError(f"{path}: the plot can't be written", WHERE)
