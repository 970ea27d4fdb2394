"""A backend that finds the planted square, and nothing else: it looks at the pixels, and never at the network.

What it hands over has the shape of the model that ships with edgeinfer, so that all of the pipeline is the real one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from edgeinfer.config.card import Model
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.preprocess.letterbox import geometry
from edgeinfer.types import Float32, Image, Letterbox, TensorSpec
from tests.browser.planted import truth

SCORE = 0.875


class Options(Struct, frozen=True, kw_only=True):
    """None."""


def open(model: Model, max_batch: int | None, options: Options) -> Finder:  # noqa: A001 (the plugin interface)
    """See `Backend`."""
    return Finder(model)


class Finder:
    """See `Backend`. One row for each picture: the square's box, in pixels of the input."""

    name, detail = "finder", "looks for a square"
    max_batch = lane_depth = 4
    slots = 2

    def __init__(self, model: Model) -> None:
        self._card = model.card.input
        self._labels = len(model.card.labels)
        self.versions: dict[str, str] = {}
        self.output_specs = [
            TensorSpec("boxes", (-1, 1, 4), "float32"),
            TensorSpec("scores", (-1, 1, self._labels), "float32"),
        ]
        self._free = [Slot() for _ in range(self.slots)]
        self._in_flight: deque[Slot] = deque()

    def prepare(self, wanted: Filter | None) -> None:
        """See `Backend.prepare`."""

    def acquire(self) -> Slot | None:
        """See `Backend.acquire`."""
        return self._free.pop() if self._free else None

    def load(self, slot: Slot, images: Sequence[Image]) -> Sequence[Letterbox]:
        """See `Backend.load`. The looking is done here already."""
        boxes = np.zeros((len(images), 1, 4), np.float32)
        scores = np.zeros((len(images), 1, self._labels), np.float32)
        fitted = [geometry(image.shape[1], image.shape[0], self._card) for image in images]
        for index, (image, box) in enumerate(zip(images, fitted, strict=True)):
            if (corners := truth(image)) is not None:
                boxes[index, 0], scores[index, 0, 0] = _in_input(corners, box), SCORE
        slot.count, slot.outputs = len(images), {"boxes": boxes, "scores": scores}
        return fitted

    def submit(self, slot: Slot) -> None:
        """See `Backend.submit`."""
        self._in_flight.append(slot)

    def collect(self, timeout_s: float) -> Slot | None:
        """See `Backend.collect`."""
        return self._in_flight.popleft() if self._in_flight else None

    def release(self, slot: Slot) -> None:
        """See `Backend.release`."""
        slot.outputs = {}
        self._free.append(slot)

    def close(self) -> None:
        """See `Backend.close`."""


def _in_input(corners: tuple[int, int, int, int], box: Letterbox) -> Float32:
    x1, y1, x2, y2 = corners
    scale = np.array([box.scale_x, box.scale_y] * 2, np.float32)
    shift = np.array([box.pad_x, box.pad_y] * 2, np.float32)
    return np.array([x1, y1, x2, y2], np.float32) * scale + shift
