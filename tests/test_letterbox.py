"""Preprocessing against a plain numpy version of itself, and boxes there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.config.card import InputCard, load_model
from edgeinfer.preprocess.letterbox import Fitting, Preprocessor, geometry
from tests.reference import letterbox

CARD = load_model("nanodet-g").card.input
sizes = st.integers(1, 2000)


def picture(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    "size",
    [
        *((1280, 720), (416, 416), (1, 1), (8000, 3), (3, 8000), (417, 415), (640, 480), (100, 100)),
        *((2, 3599), (3599, 2), (16384, 1), (1, 16384)),
    ],
)
def test_the_same_numbers_as_the_plain_way(size: tuple[int, int]) -> None:
    image = picture(*size)
    out = np.full((3, 416, 416), np.nan, np.float32)
    box = Preprocessor(CARD)(image, out)
    expected, (width, height, pad_x, pad_y) = letterbox(image)
    assert np.abs(out - expected[0]).max() < 1e-5
    assert (box.pad_x, box.pad_y) == (pad_x, pad_y)
    assert (box.scale_x, box.scale_y) == (width / size[0], height / size[1])


def test_rgb_order_and_stretch() -> None:
    card = InputCard(name="x", width=8, height=4, color="rgb", mean=[1, 2, 3], std=[2, 4, 8], resize="stretch")
    image = np.zeros((20, 10, 3), np.uint8)
    image[...] = (10, 20, 30)
    out = np.empty((3, 4, 8), np.float32)
    box = Preprocessor(card)(image, out)
    assert [float(plane[2, 3]) for plane in out] == [(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8]
    assert (out == out[:, :1, :1]).all()
    assert box.to_frame(np.array([[0, 0, 8, 4]], np.float32)).tolist() == [[0, 0, 10, 20]]


def test_more_sizes_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeinfer.preprocess.letterbox._REMEMBERED", 3)
    fitting = Fitting(CARD)
    for width, height in [(n, n + 1) for n in range(1, 9)] * 2:
        box, fit = fitting(picture(width, height))
        assert box == geometry(width, height, CARD)
        assert fit == (round(width * box.scale_x), round(height * box.scale_y))
        assert len(fitting._known) <= 3


@settings(max_examples=200)
@given(sizes, sizes, st.tuples(*[st.floats(0, 1)] * 4))
def test_a_box_comes_back_to_where_it_was(width: int, height: int, corners: tuple[float, ...]) -> None:
    box = geometry(width, height, CARD)
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    frame = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
    inside = frame * np.array([box.scale_x, box.scale_y] * 2)
    placed = (inside + np.array([box.pad_x, box.pad_y] * 2)).astype(np.float32)[None]
    assert np.abs(box.to_frame(placed)[0] - frame).max() <= 1e-3 * max(width, height)


@settings(max_examples=200)
@given(sizes, sizes)
def test_the_picture_fits_and_is_centred(width: int, height: int) -> None:
    box = geometry(width, height, CARD)
    inner = (round(width * box.scale_x), round(height * box.scale_y))
    assert max(inner) == 416
    assert 0 <= 416 - inner[0] - 2 * box.pad_x <= 1
    assert 0 <= 416 - inner[1] - 2 * box.pad_y <= 1
