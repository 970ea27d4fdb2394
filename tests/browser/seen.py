"""What the witness in the page saw of drawn pictures, and whether it was right."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct, convert

from tests.browser.chromium import Browser
from tests.browser.firefox import Firefox
from tests.browser.planted import SIDE, Options, place

WITNESS = (Path(__file__).parent / "witness.js").read_text()
NEAR, CENTRED = 6.0, 1.5
"""Pixels of the frame by which a side, and the middle, of a square may seem to be elsewhere: the line of its box has a
width and covers its edge, JPEG blurs it, and the picture is scaled."""


class Seen(Struct, frozen=True):
    """One picture that was drawn. Boxes and the square in pixels of the frame, x1 y1 x2 y2.

    `sides`: which part of the square's top, bottom, left and right has something drawn on it. `strays`: how many pixels
    are drawn where neither the square nor its label can be.
    """

    source: str
    frame: int
    size: tuple[int, int]
    scale: float
    square: tuple[float, float, float, float]
    boxes: list[tuple[float, float, float, float]]
    sides: tuple[float, float, float, float]
    strays: int


def watch(browser: Browser | Firefox, selector: str = "camera-tile") -> None:
    """From now on every picture that such a tile draws is looked at."""
    browser.js(WITNESS)
    browser.js("for (const tile of document.querySelectorAll(arguments[0])) window.__watch(tile)", selector)


def gather(browser: Browser | Firefox, count: int, timeout_s: float = 60) -> list[Seen]:
    """At least so many pictures."""
    seen: list[Seen] = []
    until = time.monotonic() + timeout_s
    while len(seen) < count:
        assert time.monotonic() < until, f"{len(seen)} of {count} pictures were drawn"
        seen += convert(browser.js("return window.__seen.splice(0)"), list[Seen])
        time.sleep(0.1)
    return seen


def faults(seen: Seen, options: Options | None = None) -> list[str]:
    """What is wrong with a picture; with `options`, the square must also be where this frame of the camera has it."""
    found = []
    if len(seen.boxes) != 1:
        return [f"{len(seen.boxes)} boxes"]
    if not close(seen.boxes[0], seen.square, NEAR) or not close(middle(seen.boxes[0]), middle(seen.square), CENTRED):
        found.append(f"the message says {seen.boxes[0]}, the picture {seen.square}")
    if min(seen.sides) < 0.9:
        found.append(f"of the square's sides these parts are drawn: {seen.sides}")
    if seen.strays:
        found.append(f"{seen.strays} pixels are drawn elsewhere")
    if options is not None:
        left, top = place(seen.frame, options)
        if not close((left, top, left + SIDE, top + SIDE), seen.boxes[0], 0.01):
            found.append(f"frame {seen.frame} has its square at {left}, {top}, not at {seen.boxes[0]}")
    return found


def close(one: tuple[float, ...], other: tuple[float, ...], near: float) -> bool:
    """Whether no number is farther from the other's than `near`."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= near


def middle(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Of a box, x and y."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
