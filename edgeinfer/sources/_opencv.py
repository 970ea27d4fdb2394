"""Reading frames with OpenCV into memory that is used again."""

from __future__ import annotations

import cv2
import numpy as np

from edgeinfer.frames import pool
from edgeinfer.types import Image


class Frames:
    """The pictures of an open capture. Those of the size that it announces lie in the frame pool."""

    def __init__(self, reader: cv2.VideoCapture) -> None:
        self._reader = reader
        self._height = int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self._width = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH))

    def read(self) -> Image | None:
        """The next picture, (H, W, 3) uint8 BGR, which the caller owns; None where there is none."""
        if self._height <= 0 or self._width <= 0:
            ok, image = self._reader.read()
        else:
            ok, image = self._reader.read(pool.empty(self._height, self._width))
        return np.asarray(image, np.uint8) if ok else None
