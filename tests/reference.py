"""The plain reference, one frame at a time: letterbox, `session.run`, NMS in numpy. Shares no code with the package."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]
MODEL = Path(__file__).parent.parent / "edgeinfer" / "models" / "nanodet-g-416.onnx"
MEAN = np.array([103.53, 116.28, 123.675])
STD = np.array([57.375, 57.12, 58.395])
SIZE, FILL, SCORE, IOU = 416, 114, 0.4, 0.6


def detect(image: Array) -> list[tuple[int, float, list[float]]]:
    """(class, score, x1 y1 x2 y2 in frame pixels) of every object, best first."""
    tensor, (width, height, pad_x, pad_y) = letterbox(image)
    boxes, scores = _session().run(["boxes", "scores"], {"images": tensor})
    best = scores[0].max(axis=1)
    rows = np.flatnonzero(best >= SCORE)
    classes = scores[0][rows].argmax(axis=1)
    kept = nms(boxes[0][rows], best[rows], classes, IOU)
    shape = image.shape
    found = []
    for i in kept:
        x1, y1, x2, y2 = boxes[0][rows[i]]
        x = [min(max((v - pad_x) * shape[1] / width, 0), shape[1]) for v in (x1, x2)]
        y = [min(max((v - pad_y) * shape[0] / height, 0), shape[0]) for v in (y1, y2)]
        found.append((int(classes[i]), float(best[rows[i]]), [x[0], y[0], x[1], y[1]]))
    return found


def letterbox(image: Array) -> tuple[Array, tuple[int, int, int, int]]:
    """The input tensor (1, 3, 416, 416) float32, and width, height and padding of the picture in it."""
    scale = min(SIZE / image.shape[1], SIZE / image.shape[0])
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    pad_x, pad_y = (SIZE - width) // 2, (SIZE - height) // 2
    canvas = np.full((SIZE, SIZE, 3), FILL, image.dtype)
    canvas[pad_y : pad_y + height, pad_x : pad_x + width] = cv2.resize(image, (width, height))
    return ((canvas - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32), (width, height, pad_x, pad_y)


def nms(boxes: Array, scores: Array, classes: Array, threshold: float) -> list[int]:
    """Greedy class-wise suppression, written out."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [j for j in kept if classes[j] == classes[i]]
        if all(iou(boxes[i], boxes[j]) <= threshold for j in rivals):
            kept.append(int(i))
    return kept


def iou(a: Any, b: Any) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return float(overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap))


def video_frames(path: Path) -> Iterator[Array]:
    """Every frame of a video of 4:2:0 and 8 bits below 720 lines, (H, W, 3) float32 BGR: BT.601 in studio range.

    Chroma is interpolated where MPEG puts its samples: on every second column, and between two rows.
    """
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            y, u, v = (_plane(plane) for plane in frame.planes)
            luma = 255 / 219 * (y - 16)
            u, v = (255 / 224 * _across(_across(c, y.shape[1], 0).T, y.shape[0], 0.25).T for c in (u - 128, v - 128))
            bgr = luma + 1.772 * u, luma - 0.344136 * u - 0.714136 * v, luma + 1.402 * v
            yield np.clip(np.stack(bgr, axis=-1), 0, 255).astype(np.float32)


def _plane(plane: Any) -> Array:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width].astype(np.float64)


def _across(samples: Array, size: int, offset: float) -> Array:
    """`size` columns of samples half as dense; column x lies at x / 2 - offset of theirs."""
    at = np.clip(np.arange(size) / 2 - offset, 0, samples.shape[1] - 1)
    left = np.floor(at).astype(int)
    right, part = np.minimum(left + 1, samples.shape[1] - 1), at - left
    mixed: Array = samples[:, left] * (1 - part) + samples[:, right] * part
    return mixed


@lru_cache(maxsize=1)
def _session() -> Any:
    return onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
