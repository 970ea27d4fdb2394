"""The boxes-and-scores decoder against greedy suppression written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.decoders import boxes_scores
from edgeinfer.errors import ConfigError
from edgeinfer.types import Float32, Letterbox, TensorSpec
from tests.reference import nms as plain_nms

IDENTITY = Letterbox(100, 100, 1.0, 1.0, 0, 0)
seeds = st.integers(0, 2**32 - 1)


def scene(seed: int, count: int, classes: int) -> tuple[Float32, Float32]:
    """Clustered boxes on a grid of halves, so that overlaps are common and never a hair from the threshold."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (count, 2)) * 4.0
    boxes = np.concatenate([corner, corner + rng.integers(1, 8, (count, 2)) * 4.0], axis=1).astype(np.float32)
    ranks = rng.permutation(count * classes).reshape(count, classes)
    scores = (ranks / max(1, count * classes)).astype(np.float32)
    return boxes, scores


@settings(max_examples=150, deadline=None)
@given(
    seeds,
    st.integers(0, 60),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.31, 0.57, 1.0]),
    st.sampled_from([0.0, 0.33, 0.9]),
)
def test_the_same_as_the_plain_way(seed: int, count: int, classes: int, iou: float, threshold: float) -> None:
    boxes, scores = scene(seed, count, classes)
    decoder = boxes_scores.open(boxes_scores.Options(score=threshold, iou=iou))
    (found,) = decoder.decode({"boxes": boxes[None], "scores": scores[None]}, [IDENTITY])
    best = scores.max(axis=1) if count else np.empty(0, np.float32)
    rows = np.flatnonzero(best >= threshold)
    labels = scores[rows].argmax(axis=1) if len(rows) else np.empty(0, int)
    kept = plain_nms(boxes[rows], best[rows], labels, iou)
    assert found.boxes.tolist() == boxes[rows][kept].tolist()
    assert found.class_ids.tolist() == labels[kept].tolist()
    assert found.scores.tolist() == best[rows][kept].tolist()


def test_only_the_best_candidates_compete_and_only_so_many_come_out() -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(9)], np.float32)
    scores = np.array([[i / 10] for i in range(1, 10)], np.float32)
    decoder = boxes_scores.open(boxes_scores.Options(score=0.1, max_candidates=4, max_detections=2))
    (found,) = decoder.decode({"boxes": boxes[None], "scores": scores[None]}, [IDENTITY])
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_centre_and_size() -> None:
    decoder = boxes_scores.open(boxes_scores.Options(format="cxcywh"))
    outputs = {"boxes": np.array([[[10, 20, 4, 8]]], np.float32), "scores": np.array([[[0.9]]], np.float32)}
    assert decoder.decode(outputs, [IDENTITY])[0].boxes.tolist() == [[8, 16, 12, 24]]


def test_no_score_that_is_not_a_number_gets_through() -> None:
    outputs = {"boxes": np.zeros((1, 2, 4), np.float32), "scores": np.full((1, 2, 1), np.nan, np.float32)}
    assert len(boxes_scores.open(boxes_scores.Options()).decode(outputs, [IDENTITY])[0]) == 0


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ([TensorSpec("boxes", (-1, 9, 4), "f")], "no output called 'scores'"),
        ([TensorSpec("boxes", (-1, 9, 5), "f"), TensorSpec("scores", (-1, 9, 2), "f")], "expected [N, M, 4]"),
        ([TensorSpec("boxes", (-1, 9, 4), "f"), TensorSpec("scores", (-1, 9, 3), "f")], "expected [N, M, 2]"),
    ],
)
def test_a_network_that_does_not_fit(specs: list[TensorSpec], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        boxes_scores.open(boxes_scores.Options()).check(specs, 2)
    assert says in caught.value.message
