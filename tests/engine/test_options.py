"""Shapes and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.engine.options import (
    BuildOptions,
    Profile,
    format_shape,
    parse_batch,
    parse_shapes,
    parse_size,
    profiles,
    single_profiles,
    usual_batches,
)
from edgeinfer.errors import UsageError
from tests.engine.samples import model

sizes = st.integers(1, 9999)


def test_batch_becomes_the_profile_of_a_free_first_dimension() -> None:
    assert profiles(model(), BuildOptions(batch=(1, 4, 8))) == {"x": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}
    assert profiles(model(shape=(1, 3, 8, 8)), BuildOptions(batch=(1, 4, 8))) == {}


@pytest.mark.parametrize(
    ("shape", "shapes", "message"),
    [
        ((-1, 3, -1, -1), {}, r"more is free than the batch; .*--shapes x="),
        ((-1, 3, 8, 8), {"z": ((1,),) * 3}, r"no input called 'z'; its inputs: x"),
        ((-1, 3, 8, 8), {"x": ((1, 4, 8, 8),) * 3}, r"does not fit"),
        ((-1, 3, 8, 8), {"x": ((1, 3, 8),) * 3}, r"does not fit"),
        ((-1, 3, 8, 8), {"x": ((2, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))}, r"must grow"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shape: tuple[int, ...], shapes: dict[str, tuple[tuple[int, ...], ...]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        profiles(model(shape=shape), BuildOptions(shapes=shapes))  # type: ignore[arg-type]  # what a config may hold


@given(st.lists(sizes, min_size=3, max_size=3).map(sorted))
def test_reads_batches(batch: list[int]) -> None:
    assert parse_batch(":".join(map(str, batch))) == tuple(batch)
    assert parse_batch(str(batch[0])) == (batch[0],) * 3


@pytest.mark.parametrize("text", ["", "0", "a", "4:2:1", "1:2", "1:2:3:4", "-1"])
def test_refuses_batches(text: str) -> None:
    with pytest.raises(UsageError, match="batch"):
        parse_batch(text)


@given(
    st.text(min_size=1, max_size=9),
    st.lists(st.lists(sizes, min_size=1, max_size=4).map(tuple), min_size=3, max_size=3),
)
def test_reads_shapes(name: str, shapes: list[tuple[int, ...]]) -> None:
    text = f"{name}=" + ":".join("x".join(map(str, shape)) for shape in shapes)
    assert parse_shapes(text) == (name, tuple(shapes))


@pytest.mark.parametrize("text", ["", "x", "x=", "=1x2", "x=1x", "x=1:2", "x=1xa", "x=1:2:3:4"])
def test_refuses_shapes(text: str) -> None:
    with pytest.raises(UsageError, match="shapes"):
        parse_shapes(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("2K", 2048), ("1.5G", 3 << 29), ("4GiB", 4 << 30), (" 3 m ", 3 << 20)]
)
def test_reads_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_kernels_are_chosen_for_the_largest_batch_or_the_one_that_is_named() -> None:
    assert [usual_batches(largest) for largest in (1, 3, 16)] == [(1, 1, 1), (1, 3, 3), (1, 16, 16)]
    assert [usual_batches(16, opt=opt) for opt in (1, 4, 32)] == [(1, 1, 16), (1, 4, 16), (1, 16, 16)]


@pytest.mark.parametrize(
    ("options", "single"),
    [
        (BuildOptions(batch=(1, 8, 8)), {}),
        (BuildOptions(batch=(1, 8, 8), single=True), {"x": ((1, 3, 8, 8),) * 3}),
        (BuildOptions(batch=(1, 1, 1), single=True), {}),
        (BuildOptions(batch=(2, 4, 8), single=True), {}),
        (BuildOptions(batch=(8, 8, 8), single=True, dla_core=0), {}),
    ],
)
def test_a_second_profile_is_for_single_pictures_where_the_first_takes_others_too(
    options: BuildOptions, single: dict[str, Profile]
) -> None:
    assert single_profiles(options, profiles(model(), options)) == single


def test_other_free_dimensions_are_free_in_the_second_profile_too() -> None:
    wide: Profile = ((1, 3, 8, 8), (4, 3, 8, 16), (8, 3, 8, 32))
    options = BuildOptions(shapes={"x": wide}, single=True)
    assert single_profiles(options, {"x": wide}) == {"x": ((1, 3, 8, 8), (1, 3, 8, 16), (1, 3, 8, 32))}


def test_a_profile_begins_at_one() -> None:
    with pytest.raises(UsageError, match="must grow from 1 on"):
        profiles(model(), BuildOptions(batch=(0, 1, 1)))
    assert profiles(model(), BuildOptions(shapes={"x": ((1, 3, 8, 8),) * 3})) == {"x": ((1, 3, 8, 8),) * 3}


def test_shapes_are_shown_as_they_are_given() -> None:
    assert (format_shape((1, 3, 416)), format_shape(())) == ("1x3x416", "scalar")


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1 2"])
def test_refuses_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="no size"):
        parse_size(text)
