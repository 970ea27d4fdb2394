"""Opening what may be anything: nothing waits, and nothing stays open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.engine.store.trust import read_private
from edgeinfer.environment.tree import Tree
from edgeinfer.guard.files import open_anything
from edgeinfer.models.onnxfile import open_regular
from edgeinfer.transport.keys import read_public


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_is_read_and_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with open_anything(tmp_path / "x") as file:
        assert file.read() == b"abc"
        assert not os.get_inheritable(file.fileno())


def test_a_pipe_is_opened_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    open_anything(tmp_path / "pipe").close()


def test_a_link_is_followed_or_not(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with open_anything(tmp_path / "link") as file:
        assert file.read() == b"abc"
    with pytest.raises(OSError, match="symbolic links"):
        open_anything(tmp_path / "link", follow=False)


@pytest.mark.parametrize(
    "read",
    [open_anything, open_regular, read_private, lambda path: read_public(str(path))],
    ids=["any", "model", "plan", "key"],
)
def test_a_folder_in_place_of_a_file_leaves_nothing_open(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    before = descriptors()
    for _ in range(3):
        with pytest.raises(Exception, match=r"(?i)directory"):
            read(tmp_path)
    assert descriptors() == before


def test_a_folder_in_the_tree_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    before = descriptors()
    Tree(tmp_path).read("etc")
    assert descriptors() == before
