"""A Jetson for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jetpack import orin, stubs
from tests.jetpack.orin import Orin


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
