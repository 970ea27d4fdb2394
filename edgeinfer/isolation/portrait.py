"""A picture on its way from one process to another: where it lies in lent memory, and how it is to be read."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.isolation.errors import too_many
from edgeinfer.isolation.lender import Lender
from edgeinfer.isolation.talk import Nonsense, whole
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.types import Colour, Image, Matrix, Picture

BGR = "bgr"
LAYOUTS, MATRICES = get_args(Layout), get_args(Matrix)


def described(picture: Image | HostSurface, block: int) -> dict[str, Any]:
    """A picture that fills the beginning of a lent block, as the other side reads it."""
    if isinstance(picture, np.ndarray):
        return {"kind": BGR, "block": block, "height": picture.shape[0], "width": picture.shape[1]}
    shape, colour = picture.shape, picture.colour
    return {
        "kind": shape.layout,
        "block": block,
        "height": shape.height,
        "width": shape.width,
        "matrix": colour.matrix,
        "full_range": colour.full_range,
    }


def seen(told: object, lender: Lender, what: str) -> Picture:
    """The picture that was described. `what` is the source in errors.

    Raises Nonsense for what can't be one, and CameraError for one with too many pixels.
    """
    if not isinstance(told, dict):
        raise Nonsense("a picture that is none")
    height, width = (whole(told, side, 1, MAX_PIXELS) for side in ("height", "width"))
    if height * width > MAX_PIXELS:
        raise too_many(what)
    if told.get("kind") == BGR:
        image = lender.pixels(told.get("block"), height * width * 3).reshape(height, width, 3)
        image.flags.writeable = False
        return image
    if told.get("kind") not in LAYOUTS:
        raise Nonsense("no such kind of picture")
    shape, colour = Shape(told["kind"], width, height), colour_of(told)
    return HostSurface(lender.pixels(told.get("block"), shape.size), shape, colour)


def colour_of(told: dict[str, Any]) -> Colour:
    """How a picture's samples are to be read. Raises Nonsense."""
    matrix, full_range = told.get("matrix"), told.get("full_range")
    for known in MATRICES:
        if known == matrix and isinstance(full_range, bool):
            return Colour(known, full_range)
    raise Nonsense("no such colours")


def camera_size(told: object) -> tuple[int, int] | None:
    """Width and height of what the camera saw, None where that is the picture's own. Raises Nonsense."""
    if told is None:
        return None
    if not isinstance(told, list) or len(told) != 2:
        raise Nonsense("no such size")
    sides = dict(zip(("width", "height"), told, strict=True))
    return whole(sides, "width", 1, MAX_PIXELS), whole(sides, "height", 1, MAX_PIXELS)
