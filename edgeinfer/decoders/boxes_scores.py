"""Networks with two outputs: boxes [N, M, 4] in input pixels and scores [N, M, classes], 0 to 1.

Each box takes its best class; class-wise non-maximum suppression follows (OpenCV's).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
from msgspec import Meta, Struct

from edgeinfer.errors import ConfigError
from edgeinfer.types import Detections, Float32, Letterbox, Outputs, TensorSpec

Share = Annotated[float, Meta(ge=0, le=1)]


class Options(Struct, frozen=True, kw_only=True):
    """Output names, thresholds, and how a box is written: two corners, or centre and size."""

    boxes: str = "boxes"
    scores: str = "scores"
    format: Literal["xyxy", "cxcywh"] = "xyxy"
    score: Share = 0.4
    iou: Share = 0.6
    max_candidates: Annotated[int, Meta(ge=1)] = 1000
    max_detections: Annotated[int, Meta(ge=1)] = 300


def open(options: Options) -> BoxesScores:  # noqa: A001 (the plugin interface)
    """The decoder."""
    return BoxesScores(options)


class BoxesScores:
    """See the module's docstring."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._labels: int | None = None
        self.outputs: tuple[str, ...] = (options.boxes, options.scores)

    def check(self, specs: Sequence[TensorSpec], labels: int) -> None:
        """Names, ranks and the number of classes must fit. Raises ConfigError."""
        by_name = {spec.name: spec for spec in specs}
        self._labels = labels
        for name, last in ((self._options.boxes, 4), (self._options.scores, labels)):
            if name not in by_name:
                raise ConfigError(f"the network has no output called {name!r}", f"it has: {', '.join(by_name)}")
            shape = by_name[name].shape
            if len(shape) != 3 or shape[2] not in (last, -1):
                raise ConfigError(
                    f"output {name!r} has shape {list(shape)}, expected [N, M, {last}]",
                    "do the card's labels and decoder belong to this network?",
                )

    def decode(self, outputs: Outputs, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        """See `Decoder.decode`."""
        boxes, scores = outputs[self._options.boxes], outputs[self._options.scores]
        self._check_arrays(boxes.shape, scores.shape)
        return [self._decode_one(boxes[i], scores[i], letterbox) for i, letterbox in enumerate(letterboxes)]

    def _check_arrays(self, boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
        """What a network with free dimensions tells only when it runs."""
        rows, classes = scores[1], self._labels or scores[2]
        if boxes[1:] != (rows, 4) or scores[2] != classes:
            raise ConfigError(
                f"the network gave boxes {list(boxes)} and scores {list(scores)}, "
                f"expected [N, M, 4] and [N, M, {classes}]",
                "do the card's labels and decoder belong to this network?",
            )

    def _decode_one(self, boxes: Float32, scores: Float32, letterbox: Letterbox) -> Detections:
        rows, classes, best = candidates(scores, self._options.score, self._options.max_candidates)
        corners = boxes[rows] if self._options.format == "xyxy" else to_corners(boxes[rows])
        sound = np.isfinite(corners).all(axis=1) & np.isfinite(best)
        if not sound.all():
            corners, best, classes = corners[sound], best[sound], classes[sound]
        if len(best) == 0:
            return Detections.empty()
        kept = nms(corners, best, classes, self._options.iou)[: self._options.max_detections]
        return Detections(letterbox.to_frame(corners[kept]), best[kept], classes[kept])


def candidates(
    scores: Float32, threshold: float, limit: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], np.ndarray[tuple[int], np.dtype[np.int32]], Float32]:
    """Rows of (M, classes) scores whose best class reaches the threshold: rows, classes, scores; the best `limit`.

    One pass over all scores finds the few that matter; the arg max runs on those rows alone.
    """
    flat = np.flatnonzero(scores.ravel() >= threshold)
    rows = np.unique(flat // scores.shape[1])
    picked = scores[rows]
    classes = picked.argmax(axis=1) if len(rows) else np.empty(0, np.intp)
    best = picked[np.arange(len(rows)), classes]
    if len(rows) > limit:
        top = np.sort(np.argpartition(-best, limit)[:limit])
        rows, classes, best = rows[top], classes[top], best[top]
    return rows, classes.astype(np.int32), best


def nms(
    corners: Float32, scores: Float32, classes: np.ndarray[tuple[int], np.dtype[np.int32]], iou: float
) -> list[int]:
    """Indices of the boxes to keep, best score first; only boxes of one class compete."""
    sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # The score threshold was applied before; 0 would leave out exact zeros, which a threshold of 0 lets in.
    kept = cv2.dnn.NMSBoxesBatched(sizes.astype(np.float64), scores, classes, -1.0, iou)  # type: ignore[arg-type]
    return [int(i) for i in kept]


def to_corners(boxes: Float32) -> Float32:
    """(n, 4) centre x, centre y, width, height → x1 y1 x2 y2."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
