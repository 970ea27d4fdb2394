"""Plots: scales with round numbers, places in a panel, and the picture of an engine's errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.commands._errors_plot import BEYOND, MOST, WITHIN, draw_errors
from edgeinfer.engine.store.manifest import Manifest, OutputError, Tolerance, Verification
from edgeinfer.errors import InputError
from edgeinfer.pictures import charts
from tests.engine.samples import manifest

TOLERANCE = Tolerance(max_error=0.05, mean_error=0.005)


@given(st.floats(1e-12, 1e12), st.integers(2, 10))
def test_a_scale_reaches_its_highest_value_in_a_few_even_steps(highest: float, most: int) -> None:
    scale = charts.ticks(highest, most)
    steps = np.diff(scale)
    assert scale[0] == 0
    assert scale[-1] >= highest * (1 - 1e-6)
    assert scale[-2] < highest
    assert len(scale) <= most + 1
    assert steps.max() == pytest.approx(steps.min(), rel=1e-6)
    assert f"{steps[0]:.0e}"[0] in "125", "round"


@pytest.mark.parametrize("nothing", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_of_nothing(nothing: float) -> None:
    assert charts.ticks(nothing) == [0.0, 1.0]


def test_numbers_are_short() -> None:
    assert [charts.shown(value) for value in (0, 0.00123456, 0.5, 12.34, 1234.5)] == [
        "0",
        "0.00123",
        "0.5",
        "12.3",
        "1234",
    ]


def test_places_in_a_panel() -> None:
    panel = charts.Panel((100, 50, 300, 150), (0, 5, 10))
    assert panel.place(0, 0) == (100, 150)
    assert panel.place(1, 10) == (300, 50)
    assert panel.place(0.5, 5) == (200, 100)
    assert panel.place(0.5, 99) == (200, 50), "kept inside"


def checked(**outputs: OutputError) -> Manifest:
    check = Verification(state="passed", samples=8, inputs="noise", outputs=outputs, tolerance=TOLERANCE)
    return msgspec.structs.replace(manifest(b"plan"), verification=check)


def drawn(engine: Manifest, tmp_path: Path) -> Any:
    draw_errors(engine, tmp_path / "errors.png")
    picture = cv2.imread(str(tmp_path / "errors.png"))
    assert picture is not None
    return picture


def width_of(picture: Any, colour: tuple[int, int, int], rows: slice, columns: slice) -> int:
    return int((picture[rows, columns] == np.array(colour)).all(axis=2).sum(axis=1).max())


def test_an_error_within_the_tolerance_and_one_beyond_it(tmp_path: Path) -> None:
    good, bad = OutputError(0.1, 0.01, 10.0), OutputError(1.0, 0.01, 10.0)
    picture = drawn(checked(boxes=good, scores=bad), tmp_path)
    left, right = slice(0, 600), slice(650, None)
    worst, other = slice(112, 132), slice(146, 166)
    beyond = width_of(picture, BEYOND, worst, left)
    assert beyond == pytest.approx(10 * width_of(picture, WITHIN, other, left), rel=0.1)
    assert width_of(picture, BEYOND, other, left) == 0
    assert width_of(picture, BEYOND, worst, right) == 0, "its mean error is within"
    assert width_of(picture, WITHIN, worst, right) > 20


def test_the_limit_is_marked_where_it_lies(tmp_path: Path) -> None:
    picture = drawn(checked(y=OutputError(0.5, 0.05, 10.0)), tmp_path)
    bar = width_of(picture, WITHIN, slice(112, 132), slice(0, 600))
    ink = (picture[104:146, 190:600] == np.array(charts.INK)).all(axis=2).sum(axis=0)
    assert abs(int(np.argmax(ink)) - bar) <= 3, "the error is just what is let pass: the bar ends at the mark"


def test_an_output_that_is_zero_and_one_that_should_be(tmp_path: Path) -> None:
    picture = drawn(checked(still=OutputError(0.0, 0.0, 0.0), wrong=OutputError(1e-9, 0.0, 0.0)), tmp_path)
    assert width_of(picture, BEYOND, slice(112, 132), slice(0, 600)) > 300
    assert width_of(picture, BEYOND, slice(146, 166), slice(0, 600)) == 0


def test_of_very_many_outputs_the_worst_are_drawn(tmp_path: Path) -> None:
    outputs = {f"y{n}": OutputError(n / 1000, 0.0, 1.0) for n in range(200)}
    picture = drawn(checked(**outputs), tmp_path)
    assert picture.shape[0] < 40 * MOST + 200
    assert width_of(picture, BEYOND, slice(112, 132), slice(0, 600)) > 300


def test_without_a_tolerance_there_is_no_limit_to_be_beyond(tmp_path: Path) -> None:
    check = Verification(state="passed", samples=1, outputs={"y": OutputError(1.0, 1.0, 1.0)})
    picture = drawn(msgspec.structs.replace(manifest(b"plan"), verification=check), tmp_path)
    assert width_of(picture, WITHIN, slice(112, 132), slice(0, 600)) > 300


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (Verification(state="skipped", reason="no GPU"), "no errors are known: no GPU"),
        (Verification(state="exceeded", reason="output y has shape (1,)"), "no errors are known: output y has shape"),
        (Verification(state="passed"), "nothing was compared"),
    ],
)
def test_an_engine_of_which_no_errors_are_known_is_told_of(check: Verification, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        draw_errors(msgspec.structs.replace(manifest(b"plan"), verification=check), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
