"""Results drawn into a picture: boxes, labels that can be read, track ids, keypoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from edgeinfer.messages import Box, Detection
from edgeinfer.pictures import lettering
from edgeinfer.pictures.lettering import Bgr
from edgeinfer.types import Image

LABELS = 100
"""So many have a label, the best first: there is no room for more, and looking for it would take time."""
FAR = 1 << 20
"""Pixels: what lies further away is drawn as if it lay there. OpenCV's coordinates have 32 bits."""
Place = tuple[int, int, int, int]
"""x1 y1 x2 y2 in pixels of the picture, the ends not part of it."""


@dataclass(frozen=True, slots=True)
class Look:
    """How thick lines are and how large letters, in proportion to the picture."""

    line: int
    letters: float
    weight: int

    @property
    def pad(self) -> int:
        """Pixels around a label's text."""
        return self.line + 1


def look_for(image: Image) -> Look:
    """Lines of 3 pixels and letters of 18 at 720 lines; never letters too small to read."""
    short = min(image.shape[:2])
    letters = min(2.0, max(0.4, round(short / 1100, 2)))
    return Look(max(1, round(short / 240)), letters, 2 if letters > 0.9 else 1)


def annotate(image: Image, detections: Sequence[Detection], scale: float = 1.0) -> Image:
    """A copy of (H, W, 3) uint8 BGR with boxes, labels, track ids and keypoints drawn into it.

    `scale`: pixels of `image` per pixel of the captured frame, where it is a scaled copy of that. Any box may be given;
    what lies outside is not drawn, and a label is kept inside, and off other labels where there is room.
    """
    picture: Image = image.copy()
    look = look_for(image)
    for found in reversed(detections):
        colour = lettering.strong(found.class_id)
        _outline(picture, found, scale, colour, look)
        if found.keypoints is not UNSET:
            _dots(picture, found.keypoints, scale, colour, look)
    taken: list[Place] = []
    for found in detections[:LABELS]:
        _label(picture, found, _around(_corners(found, scale)), look, taken)
    return picture


def caption(found: Detection) -> str:
    """What a label says: class, track and score. A class whose name can't be written here has its number."""
    name = lettering.writable(found.label) or f"class {found.class_id}"
    track = "" if found.track_id is UNSET else f" #{found.track_id}"
    return f"{name}{track} {found.score:.2f}"


def _corners(found: Detection, scale: float) -> npt.NDArray[np.float64]:
    """(4, 2): the corners of a box in the picture, clockwise. `angle` turns it by radians, clockwise as it is seen."""
    x1, y1, x2, y2 = _scaled(found.box, scale)
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    if found.angle is UNSET or not math.isfinite(found.angle):
        return corners
    cosine, sine = math.cos(found.angle), math.sin(found.angle)
    centre = corners.mean(axis=0)
    turned: npt.NDArray[np.float64] = (corners - centre) @ np.array([(cosine, sine), (-sine, cosine)]) + centre
    return turned


def _scaled(values: Iterable[float], scale: float) -> list[float]:
    return [min(FAR, max(-FAR, value * scale)) for value in values]


def _around(corners: npt.NDArray[np.float64]) -> Box:
    (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return x1, y1, x2, y2


def _outline(picture: Image, found: Detection, scale: float, colour: Bgr, look: Look) -> None:
    points = np.rint(_corners(found, scale)).astype(np.int32)
    if found.angle is UNSET:  # only what can be seen: OpenCV walks along every pixel of a line
        height, width = picture.shape[:2]
        points = np.clip(points, -look.line - 1, (width + look.line, height + look.line))
    cv2.polylines(picture, [points], True, colour, look.line)


def _dots(picture: Image, points: Sequence[tuple[float, float, float]], scale: float, colour: Bgr, look: Look) -> None:
    """Keypoints, with a rim so that they show on their own box's colour. A score of 0 says that there is none."""
    for x, y, score in points:
        if score > 0:
            across, down = (round(value) for value in _scaled((x, y), scale))
            cv2.circle(picture, (across, down), look.line + 2, lettering.readable_on(colour), -1, cv2.LINE_AA)
            cv2.circle(picture, (across, down), look.line + 1, colour, -1, cv2.LINE_AA)


def _label(picture: Image, found: Detection, box: Box, look: Look, taken: list[Place]) -> None:
    """Writes a box's label, and adds its place to those that are taken. Nothing where no letter fits."""
    rows, columns = picture.shape[:2]
    if box[2] < 0 or box[3] < 0 or box[0] > columns or box[1] > rows:
        return
    line = lettering.shortened(caption(found), columns - 2 * look.pad, look.letters, look.weight)
    above, below = lettering.heights(look.letters, look.weight)
    size = lettering.width(line, look.letters, look.weight) + 2 * look.pad, above + below + 2 * look.pad
    if not line or size[1] > rows:
        return
    place = _free_place(box, size, (columns, rows), taken)
    taken.append(place)
    colour = lettering.strong(found.class_id)
    picture[place[1] : place[3], place[0] : place[2]] = colour
    at = place[0] + look.pad, place[1] + look.pad + above
    lettering.write(picture, line, at, look.letters, lettering.readable_on(colour), look.weight)


def _free_place(box: Box, size: tuple[int, int], room: tuple[int, int], taken: Sequence[Place]) -> Place:
    """Where a label of this size goes: the first place that is free, else the first of all, over what is there."""
    places = [_kept_inside(x, y, size, room) for x, y in _wishes(box, size)]
    return next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])


def _wishes(box: Box, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Upper left corners: above the box, in it, below it, above at its right end, then ever further down in it."""
    x1, y1, x2, y2 = box
    width, height = size
    above = (x1, y1 - height) if y1 >= height else (x1, y1)
    return [above, (x1, y1), (x1, y2), (x2 - width, y1 - height), *((x1, y1 + n * height) for n in range(1, 8))]


def _kept_inside(x: float, y: float, size: tuple[int, int], room: tuple[int, int]) -> Place:
    left, top = (round(min(max(at, 0), most - own)) for at, own, most in zip((x, y), size, room, strict=True))
    return left, top, left + size[0], top + size[1]


def _overlap(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
