"""Text in pictures: what OpenCV's font can write, how much room it takes, and in which colour it can be read."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import cv2
import numpy as np

from edgeinfer.guard.printable import one_line
from edgeinfer.types import Image

FONT = cv2.FONT_HERSHEY_SIMPLEX
EVERY_SCRIPT = hasattr(cv2, "FontFace")
"""Whether OpenCV writes with a real font, as from 5.0 on. Earlier ones know ASCII, and write ??? for the rest."""
LONGEST = 80
"""Characters of a line; what comes after them is left out."""

Bgr = tuple[int, int, int]
BLACK: Bgr = (0, 0, 0)
WHITE: Bgr = (255, 255, 255)

_LATIN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
_MARKS = {"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "⁄": "/", "°": "deg"}
_CYRILLIC = (
    "а=a б=b в=v г=g д=d е=e ж=zh з=z и=i к=k л=l м=m н=n о=o п=p р=r с=s т=t у=u ф=f х=kh ц=ts ч=ch ш=sh щ=shch"
)
_CYRILLIC += " ъ= ы=y ь= э=e ю=yu я=ya є=ye і=i"
_GREEK = "α=a β=v γ=g δ=d ε=e ζ=z η=i θ=th ι=i κ=k λ=l μ=m ν=n ξ=x ο=o π=p ρ=r σ=s ς=s τ=t υ=y φ=f χ=ch ψ=ps ω=o"
_SPELLED: dict[str, str] = {**_LATIN, **_MARKS}
_SPELLED |= {pair[0]: pair[2:] for pair in f"{_CYRILLIC} {_GREEK}".split()}


def writable(text: str, every_script: bool = EVERY_SCRIPT) -> str:
    """`text` as one line that OpenCV can write; where it knows ASCII only, other letters are spelled in it.

    Without accents, Cyrillic and Greek in Latin letters. What can't be spelled is left out, which may be everything.
    """
    line = one_line(" ".join(text.split()))
    if not every_script:
        line = " ".join("".join(map(_spelled, unicodedata.normalize("NFKD", line))).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]}.."


def _spelled(letter: str) -> str:
    if letter.isascii():
        return letter
    small = _SPELLED.get(letter.lower(), "")
    return small if letter == letter.lower() else small.capitalize()


@lru_cache(maxsize=4096)
def width(line: str, size: float, weight: int = 1) -> int:
    """How many pixels a writable line takes."""
    return int(cv2.getTextSize(line, FONT, size, weight)[0][0])


@lru_cache(maxsize=64)
def heights(size: float, weight: int = 1) -> tuple[int, int]:
    """Pixels above and below the base line that any line takes."""
    (_, above), below = cv2.getTextSize("|Agjpqy", FONT, size, weight)
    return int(above), int(below)


def shortened(line: str, room: int, size: float, weight: int = 1) -> str:
    """A writable line, cut where it would take more than `room` pixels; nothing where not even a letter fits."""
    if width(line, size, weight) <= room:
        return line
    fits, too_long = 0, len(line)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width(f"{line[:middle]}..", size, weight) <= room:
            fits = middle
        else:
            too_long = middle
    return f"{line[:fits]}.." if fits else ""


def write(picture: Image, line: str, at: tuple[int, int], size: float, colour: Bgr = BLACK, weight: int = 1) -> None:
    """Writes a writable line into a picture; `at` is the left end of its base line."""
    cv2.putText(picture, line, at, FONT, size, colour, weight, cv2.LINE_AA)


def strong(number: int) -> Bgr:
    """A strong colour per number, far from its neighbours': hues in steps of the golden ratio."""
    hsv = np.array([[[number * 0.618034 % 1 * 179, 220, 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return int(blue), int(green), int(red)


def readable_on(colour: Bgr) -> Bgr:
    """Black or white, whichever stands out more."""
    return BLACK if contrast(colour, BLACK) >= contrast(colour, WHITE) else WHITE


def contrast(one: Bgr, other: Bgr) -> float:
    """From 1 to 21, as WCAG 2 counts: text wants 4.5."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Bgr) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    levels = [level / 255 for level in colour]
    blue, green, red = (level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
