"""A Jetson for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jetpack import orin, stubs
from tests.jetpack.board import JETPACK_6, Jetson, Release
from tests.jetpack.board import why_not as board_why_not
from tests.jetpack.orin import Orin
from tests.jetpack.recipe import SetUp, set_up
from tests.systemd_machine import why_not as why_no_boot


@pytest.fixture
def board(tmp_path: Path) -> Orin:
    """An Orin under JetPack 6.2 that is the test's own."""
    return made(tmp_path)


@pytest.fixture(scope="session")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Orin:
    """One with engines in its cache; whoever changes its settings sets them back."""
    return made(tmp_path_factory.mktemp("orin"))


def made(folder: Path) -> Orin:
    """Skips the test where there is no compiler."""
    if reason := stubs.why_not():
        pytest.skip(reason)
    return orin.make(folder)


def booted(share: Path, *releases: Release) -> Iterator[Jetson]:
    """A Jetson that boots, for these releases."""
    if reason := why_no_boot() or board_why_not(*releases):
        pytest.skip(reason)
    jetson = Jetson(share, *releases)
    yield jetson
    jetson.close()


@pytest.fixture(scope="session")
def jetpack6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetUp]:
    """An Orin under JetPack 6 on which the README's recipe was typed."""
    for jetson in booted(tmp_path_factory.mktemp("jetson"), JETPACK_6):
        yield set_up(jetson, JETPACK_6)
