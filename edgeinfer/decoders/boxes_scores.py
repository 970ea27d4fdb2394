"""Networks with two outputs: boxes [N, M, 4] in input pixels and scores [N, M, classes], 0 to 1.

Each box takes its best class; class-wise non-maximum suppression follows (OpenCV's).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from edgeinfer.errors import ConfigError
from edgeinfer.interfaces import Filter
from edgeinfer.types import Candidates, Detections, Float32, Int32, Letterbox, Outputs, TensorSpec

Indices = npt.NDArray[np.intp]
Float64 = npt.NDArray[np.float64]
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
        self.filter: Filter | None = Filter(options.boxes, options.scores, options.score)

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

    def decode(self, outputs: Outputs | Candidates, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        """See `Decoder.decode`."""
        found = outputs if isinstance(outputs, Candidates) else self._candidates(outputs, len(letterboxes))
        corners = found.boxes if self._options.format == "xyxy" else to_corners(found.boxes)
        sound = np.isfinite(corners).all(axis=1) & np.isfinite(found.scores) & (found.scores >= self._options.score)
        owners = np.repeat(np.arange(len(letterboxes)), found.counts)[sound]
        return self._keep(corners[sound], found.scores[sound], found.class_ids[sound], owners, letterboxes)

    def _candidates(self, outputs: Outputs, count: int) -> Candidates:
        boxes, scores = outputs[self._options.boxes], outputs[self._options.scores]
        self._check_arrays(boxes.shape, scores.shape)
        found = [candidates(scores[i], self._options.score) for i in range(count)]
        return Candidates(
            np.concatenate([boxes[i][rows] for i, (rows, _, _) in enumerate(found)]),
            np.concatenate([best for _, _, best in found]),
            np.concatenate([classes for _, classes, _ in found]),
            np.array([len(rows) for rows, _, _ in found], np.intp),
        )

    def _check_arrays(self, boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
        """What a network with free dimensions tells only when it runs."""
        rows, classes = scores[1], self._labels or scores[2]
        if boxes[1:] != (rows, 4) or scores[2] != classes:
            raise ConfigError(
                f"the network gave boxes {list(boxes)} and scores {list(scores)}, "
                f"expected [N, M, 4] and [N, M, {classes}]",
                "do the card's labels and decoder belong to this network?",
            )

    def _keep(
        self, corners: Float32, scores: Float32, classes: Int32, owners: Indices, letterboxes: Sequence[Letterbox]
    ) -> list[Detections]:
        """Suppression picture by picture; everything else for the whole batch at once, which is much cheaper."""
        ends, sizes = np.searchsorted(owners, np.arange(1, len(letterboxes) + 1)).tolist(), to_sizes(corners)
        kept, lengths, start = list[int](), list[int](), 0
        for end in ends:
            best = self._best(sizes[start:end], scores[start:end], classes[start:end])
            kept += [start + index for index in best]
            lengths.append(len(best))
            start = end
        boxes = to_frames(corners[kept], letterboxes, np.repeat(np.arange(len(letterboxes)), lengths))
        return split(Detections(boxes, scores[kept], classes[kept]), lengths)

    def _best(self, sizes: Float64, scores: Float32, classes: Int32) -> list[int]:
        limit, most, iou = self._options.max_candidates, self._options.max_detections, self._options.iou
        if len(scores) <= limit:
            return suppressed(sizes, scores, classes, iou)[:most]
        top = np.sort(np.argpartition(-scores, limit)[:limit])
        found: list[int] = top[suppressed(sizes[top], scores[top], classes[top], iou)[:most]].tolist()
        return found


def candidates(scores: Float32, threshold: float) -> tuple[Indices, Int32, Float32]:
    """Rows of (M, classes) scores whose best class reaches the threshold: rows, classes, scores.

    One pass over all scores finds the few that matter; the arg max runs on those rows alone.
    """
    flat = np.flatnonzero(scores.ravel() >= threshold)
    rows = np.unique(flat // scores.shape[1])
    picked = scores[rows]
    classes = picked.argmax(axis=1) if len(rows) else np.empty(0, np.intp)
    return rows, classes.astype(np.int32), picked[np.arange(len(rows)), classes]


def to_frames(corners: Float32, letterboxes: Sequence[Letterbox], owners: Indices) -> Float32:
    """`Letterbox.to_frame` for (n, 4) boxes of several pictures; `owners` says whose each box is."""
    shift, scale, limit = np.stack([box.table for box in letterboxes])[owners].transpose(1, 0, 2)
    inside: Float32 = np.clip((corners - shift) / scale, 0, limit)
    return inside


def split(together: Detections, lengths: Sequence[int]) -> list[Detections]:
    """The detections of each picture, views of what they share."""
    parts, start = [], 0
    for length in lengths:
        end = start + length
        parts.append(Detections(together.boxes[start:end], together.scores[start:end], together.class_ids[start:end]))
        start = end
    return parts


def nms(corners: Float32, scores: Float32, classes: Int32, iou: float) -> list[int]:
    """Indices of the boxes to keep, best score first; only boxes of one class compete."""
    return suppressed(to_sizes(corners), scores, classes, iou)


def suppressed(sizes: Float64, scores: Float32, classes: Int32, iou: float) -> list[int]:
    """See `nms`; of boxes as `to_sizes` gives them."""
    if len(scores) < 2:
        return list(range(len(scores)))
    # The score threshold was applied before; 0 would leave out exact zeros, which a threshold of 0 lets in.
    kept = cv2.dnn.NMSBoxesBatched(sizes, scores, classes, -1.0, iou)  # type: ignore[arg-type]
    found: list[int] = np.asarray(kept).tolist()
    return found


def to_sizes(corners: Float32) -> Float64:
    """(n, 4) x1 y1 x2 y2 → left, top, width, height, in the type that OpenCV reckons with."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float64)


def to_corners(boxes: Float32) -> Float32:
    """(n, 4) centre x, centre y, width, height → x1 y1 x2 y2."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
