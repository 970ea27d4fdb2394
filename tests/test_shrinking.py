"""Surfaces at the network's size, against the formula in plain numpy."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.config.card import InputCard, load_model
from edgeinfer.pictures.colour import reference_bgr
from edgeinfer.pictures.host import HostSurface, Layout, Samples
from edgeinfer.preprocess.letterbox import Preprocessor, geometry
from edgeinfer.preprocess.shrinking import shrunk
from edgeinfer.types import Colour, Float32, Image, Planes
from tests.test_surfaces import COLOURS, LAYOUTS, surface

CARD = load_model("nanodet-g").card.input
Places = npt.NDArray[np.float64]
sides = st.integers(1, 70)
ROUNDING = 6 if int(cv2.__version__.split(".")[0]) >= 5 else 16
"""Levels of 255, in pictures of noise: planes are rounded before they are mixed, and OpenCV 4 rounds
places to 1/32 of a sample."""


def at(plane: Samples, xs: Places, ys: Places) -> Float32:
    """The plane between its samples, bilinearly; beyond its edge as on it."""
    xs, ys = np.clip(xs, 0, plane.shape[1] - 1), np.clip(ys, 0, plane.shape[0] - 1)
    left, top = np.floor(xs).astype(int), np.floor(ys).astype(int)
    right, down = np.minimum(left + 1, plane.shape[1] - 1), np.minimum(top + 1, plane.shape[0] - 1)
    levels = plane.astype(np.float64) / (256 if plane.dtype == np.uint16 else 1)
    rows = levels[:, left] * (1 - (xs - left)) + levels[:, right] * (xs - left)
    part = (ys - top)[:, None]
    found: Float32 = (rows[top] * (1 - part) + rows[down] * part).astype(np.float32)
    return found


def reference(picture: HostSurface, width: int, height: int) -> Float32:
    """Each pixel by itself: where its middle lies in the luma, and in the chroma, which lies on the left luma column of
    its pair and between its rows."""
    xs = (np.arange(width) + 0.5) * picture.width / width - 0.5
    ys = (np.arange(height) + 0.5) * picture.height / height - 0.5
    u, v = (at(chroma, xs / 2, ys / 2 - 0.25) for chroma in picture.chroma)
    return reference_bgr(at(picture.luma, xs, ys), u, v, picture.colour)


@given(st.sampled_from(LAYOUTS), sides, sides, sides, sides, st.sampled_from(COLOURS), st.integers(0, 1 << 30))
def test_every_pixel_is_what_the_formula_says(
    layout: Layout, width: int, height: int, across: int, down: int, colour: Colour, seed: int
) -> None:
    picture = surface(layout, width, height, colour, seed)
    found = shrunk(picture, across, down)
    assert found.shape == (down, across, 3)
    assert np.abs(found - reference(picture, across, down)).max() <= ROUNDING


@pytest.mark.parametrize("size", [(1280, 720), (1919, 1079), (417, 415), (2, 3599), (1, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input_holds_it_as_the_card_says(layout: Layout, size: tuple[int, int]) -> None:
    picture = surface(layout, *size, Colour("bt709"))
    out = np.full((3, CARD.height, CARD.width), np.nan, np.float32)
    box = Preprocessor(CARD)(picture, out)
    assert box == geometry(*size, CARD)
    width, height = round(size[0] * box.scale_x), round(size[1] * box.scale_y)
    inside = out[:, box.pad_y : box.pad_y + height, box.pad_x : box.pad_x + width].transpose(1, 2, 0)
    levels = inside * np.array(CARD.std) + np.array(CARD.mean)
    assert np.abs(levels - reference(picture, width, height)).max() <= ROUNDING
    assert not np.isnan(out).any()


def test_a_surface_from_elsewhere_is_converted_first() -> None:
    """One that does not lie in host memory, as this process sees it."""

    class Elsewhere:
        width, height, on_device, written = 4, 2, True, 0
        planes, colour = Planes(0, 0, 0, 0, 0, 0, 1), Colour()

        def image(self) -> Image:
            return np.full((2, 4, 3), 7, np.uint8)

        def sample(self, grid: int) -> bytes:
            return b""

    card = InputCard(name="x", width=4, height=2, color="bgr", mean=[0, 0, 0], std=[1, 1, 1], resize="stretch")
    out = np.empty((3, 2, 4), np.float32)
    Preprocessor(card)(Elsewhere(), out)
    assert (out == 7).all()
