"""Contract tests over every decoder plugin, one from elsewhere among them; then the built-in one against greedy
suppression written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.config import plugins
from edgeinfer.config.card import Model, ModelCard
from edgeinfer.config.settings import ModelConfig
from edgeinfer.daemon.assembly import open_decoder
from edgeinfer.decoders import boxes_scores
from edgeinfer.errors import ConfigError
from edgeinfer.interfaces import Decoder, Filter
from edgeinfer.types import AnyArray, Candidates, Detections, Float32, Letterbox, TensorSpec
from tests.outside import install
from tests.reference import nms as plain_nms

IDENTITY = Letterbox(100, 100, 1.0, 1.0, 0, 0)
seeds = st.integers(0, 2**32 - 1)
LABELS = 3
Tensors = dict[str, AnyArray]
OUTSIDE = "my_decoders.rows"

CODE = """
import numpy as np
from msgspec import Struct

from edgeinfer.decoders.boxes_scores import nms
from edgeinfer.errors import ConfigError
from edgeinfer.types import Detections


class Options(Struct, frozen=True, kw_only=True):
    score: float = 0.4
    iou: float = 0.6


def open(options):
    return Rows(options)


class Rows:
    outputs = ("rows",)
    filter = None

    def __init__(self, options):
        self._options = options

    def check(self, specs, labels):
        if [tuple(spec.shape[2:]) for spec in specs if spec.name == "rows"] != [(6,)]:
            raise ConfigError("the network has no output rows [N, M, 6]")

    def decode(self, outputs, letterboxes):
        return [self._one(rows, box) for rows, box in zip(outputs["rows"], letterboxes)]

    def _one(self, rows, box):
        sound = rows[np.isfinite(rows).all(axis=1) & (rows[:, 4] >= self._options.score)]
        classes = sound[:, 5].astype(np.int32)
        kept = nms(sound[:, :4], sound[:, 4], classes, self._options.iou)
        return Detections(box.to_frame(sound[kept, :4]), sound[kept, 4], classes[kept])
"""
"""A decoder in full, of networks that write one row of six numbers per object."""


@dataclass(frozen=True)
class Scene:
    """One picture's objects, as a network sees them: (n, 4) corners in input pixels, (n,) scores, (n,) classes."""

    corners: Float32
    scores: Float32
    classes: AnyArray


def as_boxes_and_scores(scenes: Sequence[Scene], rows: int) -> Tensors:
    boxes = np.zeros((len(scenes), rows, 4), np.float32)
    scores = np.zeros((len(scenes), rows, LABELS), np.float32)
    for picture, scene in enumerate(scenes):
        count = len(scene.scores)
        boxes[picture, :count] = scene.corners
        scores[picture, np.arange(count), scene.classes] = scene.scores
    return {"boxes": boxes, "scores": scores}


def as_rows(scenes: Sequence[Scene], rows: int) -> Tensors:
    table = np.zeros((len(scenes), rows, 6), np.float32)
    for picture, scene in enumerate(scenes):
        columns = np.column_stack([scene.corners, scene.scores, scene.classes])
        table[picture, : len(scene.scores)] = columns
    return {"rows": table}


WRITERS: dict[str, Callable[[Sequence[Scene], int], Tensors]] = {
    "boxes_scores": as_boxes_and_scores,
    OUTSIDE: as_rows,
}
"""How the outputs look from which each decoder reads the same objects. A new decoder adds its own here."""


@pytest.fixture(params=[*plugins.names("decoders"), OUTSIDE])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == OUTSIDE:
        install(monkeypatch, tmp_path, OUTSIDE, CODE)
    return str(request.param)


def opened(name: str, **options: Any) -> Decoder:
    """The decoder as a run gets it: named by a card, with the card's thresholds."""
    card = {
        "name": "m", "file": "m.onnx", "labels": ["a", "b", "c"], "decoder": {"name": name}, "thresholds": options,
        "input": {"name": "x", "width": 64, "height": 64, "color": "bgr", "mean": [0, 0, 0], "std": [1, 1, 1]},
    }  # fmt: skip
    return open_decoder(Model(card=msgspec.convert(card, ModelCard), path=Path("m.onnx"), sha256="0"), ModelConfig())


def crowd(seed: int, count: int) -> Scene:
    """Clustered boxes on a grid, no two with the same score, some reaching out of the picture."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(-2, 12, (count, 2)) * 4.0
    corners = np.concatenate([corner, corner + rng.integers(1, 8, (count, 2)) * 4.0], axis=1).astype(np.float32)
    scores = ((rng.permutation(count) + 1) / (count + 1)).astype(np.float32)
    return Scene(corners, scores, rng.integers(0, LABELS, count))


def expected(scene: Scene, box: Letterbox, score: float, iou: float) -> Detections:
    """What must be found, by the plain way."""
    rows = np.flatnonzero(scene.scores >= score)
    kept = rows[plain_nms(scene.corners[rows], scene.scores[rows], scene.classes[rows], iou)] if len(rows) else rows
    inside = box.to_frame(scene.corners[kept]) if len(kept) else np.empty((0, 4), np.float32)
    return Detections(inside, scene.scores[kept], scene.classes[kept].astype(np.int32))


def plain(found: Detections) -> tuple[Any, ...]:
    return found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist()


PICTURES = st.lists(st.tuples(seeds, st.integers(0, 25)), min_size=1, max_size=4)
BOXES = [
    IDENTITY,
    Letterbox(40, 30, 1.0, 1.0, 0, 0),
    Letterbox(200, 100, 0.5, 0.5, 4, 8),
    Letterbox(7, 90, 2.0, 0.5, 3, 0),
]
any_example = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_example
@given(PICTURES, st.sampled_from([0.31, 0.57]), st.sampled_from([0.1, 0.4]))
def test_each_picture_has_its_objects_best_first_inside_its_frame(
    name: str, pictures: list[tuple[int, int]], iou: float, score: float
) -> None:
    """A batch is decoded as its pictures would be one by one, and boxes of one class alone compete."""
    scenes = [crowd(seed, count) for seed, count in pictures]
    decoder, boxes = opened(name, score=score, iou=iou), BOXES[: len(scenes)]
    outputs = WRITERS[name](scenes, 30)
    found = decoder.decode(outputs, boxes)
    assert [plain(one) for one in found] == [
        plain(expected(scene, box, score, iou)) for scene, box in zip(scenes, boxes, strict=True)
    ]
    for one, box in zip(found, boxes, strict=True):
        assert [one.boxes.dtype, one.scores.dtype, one.class_ids.dtype] == [np.dtype(t) for t in ("f4", "f4", "i4")]
        assert sorted(one.scores.tolist(), reverse=True) == one.scores.tolist()
        assert (one.boxes >= 0).all()
        assert (one.boxes <= [box.frame_width, box.frame_height] * 2).all()


@any_example
@given(PICTURES)
def test_what_was_found_stays_when_the_outputs_are_overwritten(name: str, pictures: list[tuple[int, int]]) -> None:
    scenes = [crowd(seed, count) for seed, count in pictures]
    outputs = WRITERS[name](scenes, 30)
    found = opened(name).decode(outputs, BOXES[: len(scenes)])
    before = [plain(one) for one in found]
    for array in outputs.values():
        array.fill(0.77)
    assert [plain(one) for one in found] == before


@any_example
@given(PICTURES)
def test_a_backend_may_hand_over_what_the_decoder_would_read_alone(name: str, pictures: list[tuple[int, int]]) -> None:
    decoder = opened(name)
    wanted = decoder.filter
    if wanted is None:
        return
    scenes = [crowd(seed, count) for seed, count in pictures]
    outputs, boxes = WRITERS[name](scenes, 30), BOXES[: len(scenes)]
    raw, scores = outputs[wanted.boxes], outputs[wanted.scores]
    rows = [np.flatnonzero(picture.max(axis=1) >= wanted.score) for picture in scores]
    chosen = Candidates(
        np.concatenate([raw[i][r] for i, r in enumerate(rows)]),
        np.concatenate([scores[i][r].max(axis=1) for i, r in enumerate(rows)]),
        np.concatenate([scores[i][r].argmax(axis=1) for i, r in enumerate(rows)]).astype(np.int32),
        np.array([len(r) for r in rows], np.intp),
    )
    assert [plain(one) for one in decoder.decode(chosen, boxes)] == [
        plain(one) for one in decoder.decode(outputs, boxes)
    ]
    assert set(wanted.reads) <= set(decoder.outputs)


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_pictures_without_objects(name: str, rows: int) -> None:
    nothing = crowd(0, 0)
    found = opened(name).decode(WRITERS[name]([nothing] * 3, rows), BOXES[:3])
    assert [len(one) for one in found] == [0, 0, 0]
    assert [one.boxes.shape for one in found] == [(0, 4)] * 3


def test_what_lies_beyond_the_batch_is_not_read(name: str) -> None:
    """A backend's buffers are as large as its largest batch."""
    scenes = [crowd(seed, 20) for seed in range(4)]
    decoder = opened(name)
    assert [plain(one) for one in decoder.decode(WRITERS[name](scenes, 30), BOXES[:2])] == [
        plain(one) for one in decoder.decode(WRITERS[name](scenes[:2], 30), BOXES[:2])
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_that_is_none_gets_out(name: str, bad: float) -> None:
    decoder, sound = opened(name), WRITERS[name]([crowd(3, 8)], 8)
    for output, array in sound.items():
        for column in range(array.shape[2]):
            spoilt = array.copy()
            spoilt[..., column] = bad
            (found,) = decoder.decode({**sound, output: spoilt}, [IDENTITY])
            assert np.isfinite(found.boxes).all()
            assert np.isfinite(found.scores).all()


def test_a_decoder_knows_its_network_from_another(name: str) -> None:
    decoder = opened(name)
    specs = [
        TensorSpec(output, (-1, *array.shape[1:]), "float32")
        for output, array in WRITERS[name]([crowd(0, 1)], 5).items()
    ]
    decoder.check(specs, LABELS)
    assert set(decoder.outputs) == {spec.name for spec in specs}
    with pytest.raises(ConfigError):
        decoder.check([TensorSpec("something", (1, 5), "float32")], LABELS)


# The built-in one


def scene(seed: int, count: int, classes: int) -> tuple[Float32, Float32]:
    """Clustered boxes on a grid of halves, so that overlaps are common and never a hair from the threshold."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (count, 2)) * 4.0
    boxes = np.concatenate([corner, corner + rng.integers(1, 8, (count, 2)) * 4.0], axis=1).astype(np.float32)
    ranks = rng.permutation(count * classes).reshape(count, classes)
    scores = (ranks / max(1, count * classes)).astype(np.float32)
    return boxes, scores


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    seeds,
    st.integers(0, 60),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.31, 0.57, 1.0]),
    st.sampled_from([0.0, 0.33, 0.9]),
    st.sampled_from([(1000, 300), (1000, 3), (9, 300), (9, 2)]),
)
def test_the_same_as_the_plain_way(
    seed: int, count: int, classes: int, iou: float, threshold: float, most: tuple[int, int]
) -> None:
    boxes, scores = scene(seed, count, classes)
    options = boxes_scores.Options(score=threshold, iou=iou, max_candidates=most[0], max_detections=most[1])
    (found,) = boxes_scores.open(options).decode({"boxes": boxes[None], "scores": scores[None]}, [IDENTITY])
    best = scores.max(axis=1) if count else np.empty(0, np.float32)
    rows = np.array(
        [row for row in np.argsort(-best, kind="stable") if best[row] >= np.float32(threshold)][: most[0]], np.intp
    )
    labels = scores[rows].argmax(axis=1) if len(rows) else np.empty(0, int)
    kept = plain_nms(boxes[rows], best[rows], labels, iou)[: most[1]]
    assert found.boxes.tolist() == boxes[rows][kept].tolist()
    assert found.class_ids.tolist() == labels[kept].tolist()
    assert found.scores.tolist() == best[rows][kept].tolist()


def test_only_the_best_candidates_compete_and_only_so_many_come_out() -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(9)], np.float32)
    scores = np.array([[i / 10] for i in range(1, 10)], np.float32)
    decoder = boxes_scores.open(boxes_scores.Options(score=0.1, max_candidates=4, max_detections=2))
    (found,) = decoder.decode({"boxes": boxes[None], "scores": scores[None]}, [IDENTITY])
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_a_score_at_the_threshold_reaches_it() -> None:
    outputs = {"boxes": np.array([[[1, 2, 3, 4]]], np.float32), "scores": np.array([[[0.5]]], np.float32)}
    for threshold, count in ((0.5, 1), (0.51, 0)):
        assert len(boxes_scores.open(boxes_scores.Options(score=threshold)).decode(outputs, [IDENTITY])[0]) == count


def test_centre_and_size() -> None:
    decoder = boxes_scores.open(boxes_scores.Options(format="cxcywh"))
    outputs = {"boxes": np.array([[[10, 20, 4, 8]]], np.float32), "scores": np.array([[[0.9]]], np.float32)}
    assert decoder.decode(outputs, [IDENTITY])[0].boxes.tolist() == [[8, 16, 12, 24]]


def test_outputs_may_have_other_names_and_are_found_by_them() -> None:
    decoder = boxes_scores.open(boxes_scores.Options(boxes="b", scores="s", score=0.3))
    assert (decoder.outputs, decoder.filter) == (("b", "s"), Filter("b", "s", 0.3))
    outputs = {"b": np.array([[[1, 2, 3, 4]]], np.float32), "s": np.array([[[0.1, 0.9]]], np.float32)}
    assert plain(decoder.decode(outputs, [IDENTITY])[0]) == ([[1, 2, 3, 4]], [pytest.approx(0.9)], [1])


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ([TensorSpec("boxes", (-1, 9, 4), "f")], "no output called 'scores'"),
        ([TensorSpec("boxes", (-1, 9, 5), "f"), TensorSpec("scores", (-1, 9, 2), "f")], "expected [N, M, 4]"),
        ([TensorSpec("boxes", (-1, 9, 4), "f"), TensorSpec("scores", (-1, 9, 3), "f")], "expected [N, M, 2]"),
        ([TensorSpec("boxes", (9, 4), "f"), TensorSpec("scores", (-1, 9, 2), "f")], "expected [N, M, 4]"),
    ],
)
def test_a_network_that_does_not_fit(specs: list[TensorSpec], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        boxes_scores.open(boxes_scores.Options()).check(specs, 2)
    assert says in caught.value.message


@pytest.mark.parametrize(("boxes", "scores"), [((1, 3, 4), (1, 2, 2)), ((1, 2, 5), (1, 2, 2)), ((1, 2, 4), (1, 2, 3))])
def test_what_a_network_with_free_sizes_tells_only_when_it_runs(boxes: Any, scores: Any) -> None:
    decoder = boxes_scores.open(boxes_scores.Options())
    decoder.check([TensorSpec("boxes", (-1, -1, 4), "f"), TensorSpec("scores", (-1, -1, -1), "f")], 2)
    outputs = {"boxes": np.zeros(boxes, np.float32), "scores": np.zeros(scores, np.float32)}
    with pytest.raises(ConfigError, match="do the card's labels and decoder belong to this network"):
        decoder.decode(outputs, [IDENTITY])
