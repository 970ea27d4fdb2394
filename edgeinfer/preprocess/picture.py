"""A picture file as network input, by the same hand as every frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.errors import InputError
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import Float32


def picture_input(path: Path, card: InputCard) -> Float32:
    """(3, height, width) float32, in new memory. Raises InputError where the file is no picture."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None  # a pipe would be waited for
    if image is None:
        raise InputError(f"{path}: can't be read as a picture", "remove it, or write it again")
    out = np.empty((3, card.height, card.width), np.float32)
    Preprocessor(card)(np.asarray(image, np.uint8), out)
    return out
