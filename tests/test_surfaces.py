"""Surfaces in host memory, and how a backend that takes none gets its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.contract import breach
from edgeinfer.errors import OutOfMemoryError, StalledError
from edgeinfer.flow.slots import acceptable, as_seen
from edgeinfer.frames import Block, pool
from edgeinfer.pictures.colour import coefficients, matrix, reference_bgr
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.types import Capture, Colour, Float32, Frame, Letterbox, Matrix, Picture, Planes, Surface
from tests.plain_backend import Plain

MATRICES: tuple[Matrix, ...] = ("bt601", "bt709", "bt2020")
COLOURS = [Colour(matrix, full) for matrix in MATRICES for full in (False, True)]
LAYOUTS: tuple[Layout, ...] = ("nv12", "i420", "p010")


def surface(layout: Layout, width: int, height: int, colour: Colour, seed: int = 0) -> HostSurface:
    """One of random luma and smooth chroma."""
    shape = Shape(layout, width, height)
    memory = pool.bytes(shape.size)
    memory[:] = np.random.default_rng(seed).integers(0, 256, shape.size, np.uint8)
    return HostSurface(memory, shape, colour)


def reference(picture: HostSurface) -> Float32:
    """Bilinear chroma, each pixel by itself."""
    scale = 256.0 if picture.shape.depth == 2 else 1.0
    ys, xs = np.mgrid[: picture.height, : picture.width].astype(np.float64)
    planes = [picture.luma / scale]
    for chroma in picture.chroma:
        at_y = np.clip(ys / 2 - 0.25, 0, chroma.shape[0] - 1)
        at_x = np.clip(xs / 2, 0, chroma.shape[1] - 1)
        top, left = np.floor(at_y).astype(int), np.floor(at_x).astype(int)
        down, right = np.minimum(top + 1, chroma.shape[0] - 1), np.minimum(left + 1, chroma.shape[1] - 1)
        c, fy, fx = chroma / scale, at_y - top, at_x - left
        above, below = c[top, left] * (1 - fx) + c[top, right] * fx, c[down, left] * (1 - fx) + c[down, right] * fx
        planes.append(above * (1 - fy) + below * fy)
    luma, u, v = (plane.astype(np.float32) for plane in planes)
    return reference_bgr(luma, u, v, picture.colour)


@given(
    st.sampled_from(LAYOUTS), st.integers(1, 40), st.integers(1, 40), st.sampled_from(COLOURS), st.integers(0, 1 << 30)
)
def test_its_image_is_what_the_formula_says(layout: Layout, width: int, height: int, colour: Colour, seed: int) -> None:
    picture = surface(layout, width, height, colour, seed)
    assert np.abs(picture.image() - reference(picture)).max() <= 3  # chroma is rounded before the matrix


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_black_white_and_grey_have_no_colour(colour: Colour) -> None:
    black, white = (0, 255) if colour.full_range else (16, 235)
    luma = np.array([[black, white, (black + white) / 2]], np.float32)
    grey = np.full_like(luma, 128)
    assert np.allclose(reference_bgr(luma, grey, grey, colour)[0].T, [[0, 255, 127.5]] * 3, atol=0.01)


def test_the_numbers_of_the_standards() -> None:
    full = coefficients(Colour("bt601", True))  # JFIF 1.02, page 3
    assert (round(full.red_v, 3), round(full.blue_u, 3)) == (1.402, 1.772)
    assert (round(full.green_u, 4), round(full.green_v, 4)) == (-0.3441, -0.7141)
    assert round(coefficients(Colour("bt709")).red_v, 3) == 1.793
    assert matrix(Colour("bt2020")).shape == (3, 4)


def test_it_is_converted_once() -> None:
    picture = surface("nv12", 16, 8, Colour())
    assert picture.image() is picture.image()
    assert not picture.image().flags.writeable


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_planes_are_where_it_says(layout: Layout) -> None:
    picture = surface(layout, 7, 5, Colour())
    start, planes = picture.memory.ctypes.data, picture.planes
    assert picture.luma.ctypes.data == planes.luma == start
    assert [c.ctypes.data for c in picture.chroma] == [planes.u, planes.v]
    assert picture.luma.strides == (planes.luma_pitch, planes.depth)
    assert {c.strides for c in picture.chroma} == {(planes.chroma_pitch, planes.chroma_step)}
    assert isinstance(picture, Surface)
    assert breach(Capture(picture, 0, 0)) == ""


class Watched(HostSurface):
    """Counts how often it is asked for its planes."""

    asked = 0

    @property
    def planes(self) -> Planes:
        Watched.asked += 1
        return super().planes


def test_a_surface_is_known_by_its_type_and_what_is_none_is_no_picture() -> None:
    plain = surface("nv12", 8, 8, Colour())
    for _ in range(3):
        assert breach(Capture(Watched(plain.memory, plain.shape, plain.colour), 0, 0)) == ""
    assert Watched.asked <= 1, "to look for the members takes longer than everything else"
    half: Any = SimpleNamespace(width=8, height=8, image=plain.image)
    assert breach(Capture(half, 0, 0)) == "its image is a SimpleNamespace, not an array"


class Mute(Plain):
    """Takes BGR images alone."""

    def __init__(self) -> None:
        """Without a network: it is only asked."""


class Choosy(Mute):
    """Takes surfaces of eight bits."""

    def takes(self, one: Surface) -> bool:
        return one.planes.depth == 1


def frames(*pictures: Picture) -> Sequence[Frame]:
    return [Frame("a", i, Capture(picture, 0, 0), live=True) for i, picture in enumerate(pictures)]


def test_a_backend_gets_what_it_takes() -> None:
    eight, ten = surface("nv12", 8, 8, Colour()), surface("p010", 8, 8, Colour())
    given = frames(eight, ten, eight.image())
    plain = acceptable(Mute(), given)
    assert [picture is frame.image for picture, frame in zip(plain, given, strict=True)] == [True] * 3
    choosy = acceptable(Choosy(), given)
    assert choosy[0] is eight
    assert choosy[1] is ten.image()


def test_a_picture_that_can_not_be_converted_now_costs_its_batch_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(size: int) -> Block:
        raise StalledError("no room for a picture")

    one = surface("nv12", 8, 8, Colour())
    monkeypatch.setattr(pool.supply, "take", refuse)
    with pytest.raises(OutOfMemoryError, match="no room"):
        acceptable(Mute(), frames(one))
    monkeypatch.undo()
    assert one.image().shape == (8, 8, 3), "later there may be some"


def test_boxes_of_a_smaller_copy_are_told_in_pixels_of_what_was_seen() -> None:
    small = Letterbox(416, 234, 1.0, 1.0, 0, 91)
    frame = Frame("a", 0, Capture(np.zeros((234, 416, 3), np.uint8), 0, 0, seen=(1280, 720)), live=True)
    box = as_seen(small, frame).to_frame(np.array([[0, 91, 416, 325], [208, 208, 416, 325]], np.float32))
    assert np.allclose(box, [[0, 0, 1280, 720], [640, 360, 1280, 720]], atol=0.01)
