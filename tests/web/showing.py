"""What tests of the live view share: results with a square that stands where their box says."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
from msgspec import structs

from edgeinfer.messages import Detection, DetectionsMessage, InfoMessage, StatusMessage
from edgeinfer.types import Capture, Detections, Frame, Image, Picture, Result, Timing
from tests.test_messages import example

SQUARE = 64
WIDTH, HEIGHT = 640, 360


def square_at(number: int) -> tuple[int, int]:
    """Left and top edge of the square in picture `number`: far from where the next one's is."""
    return number * 96 % (WIDTH - SQUARE), number * 56 % (HEIGHT - SQUARE)


def planted(number: int) -> Image:
    """A grey picture with a white square."""
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    left, top = square_at(number)
    image[top : top + SQUARE, left : left + SQUARE] = 255
    return image


def detections(source: str, number: int, **fields: Any) -> DetectionsMessage:
    """The message of such a picture, published now."""
    left, top = square_at(number)
    box = Detection(0, "square", 0.9, (left, top, left + SQUARE, top + SQUARE))
    message = example("detections")
    assert isinstance(message, DetectionsMessage)
    made = {"source": source, "seq": number, "frame_id": number, "width": WIDTH, "height": HEIGHT, "detections": [box]}
    return structs.replace(message, **{**made, "t_publish_mono_ns": time.monotonic_ns(), **fields})


def result(source: str, picture: Picture | None = None, number: int = 0) -> Result:
    """What that message was made of."""
    info = example("info")
    assert isinstance(info, InfoMessage)
    capture = Capture(planted(number) if picture is None else picture, 0, 0)
    return Result(
        Frame(source, number, capture, live=True), number, Detections.empty(), Timing(0, 0, 0, 0), 0, "cpu", info.model
    )


def status(source: str, state: str = "running", number: int = 0) -> StatusMessage:
    """A source's."""
    message = example("status", number)
    assert isinstance(message, StatusMessage)
    return structs.replace(message, source=source, state=state, reason=None)


def info(*sources: str) -> InfoMessage:
    """What the daemon is, with these sources."""
    message = example("info")
    assert isinstance(message, InfoMessage)
    return structs.replace(message, sources=list(sources))


def square_in(jpeg: bytes) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of the white square in a JPEG, in pixels of the picture that it was made of."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    rows, columns = np.nonzero(image > 158)
    across, down = WIDTH / image.shape[1], HEIGHT / image.shape[0]
    x1, x2 = columns.min() * across, (columns.max() + 1) * across
    y1, y2 = rows.min() * down, (rows.max() + 1) * down
    return float(x1), float(y1), float(x2), float(y2)
