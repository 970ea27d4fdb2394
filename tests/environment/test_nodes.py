"""Device nodes that this user may not open."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgeinfer.environment import nodes
from edgeinfer.environment.facts import Note
from edgeinfer.environment.tree import Tree

NULL = os.makedev(1, 3)


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's /dev, for a user who is not root: root may open everything."""
    folder = tmp_path / "dev"
    (folder / "nvgpu/igpu0").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, how: bool(path.stat().st_mode & stat.S_IROTH))
    return folder


def make(path: Path, mode: int, group: int = 44) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, NULL)
    except PermissionError:
        pytest.skip("only root can make device nodes")
    path.chmod(mode)
    os.chown(path, 0, group)


def test_those_of_the_gpu_are_told_with_their_group(dev: Path) -> None:
    for name in ("nvmap", "nvhost-ctrl-gpu", "nvgpu/igpu0/ctrl", "video0"):
        make(dev / name, 0o660)
    make(dev / "nvhost-gpu", 0o666)
    (dev / "nvidia0").write_text("no device")
    found, user = nodes.read(Tree(dev.parent))
    closed = tuple(f"{dev}/{name}" for name in ("nvgpu/igpu0/ctrl", "nvhost-ctrl-gpu", "nvmap"))
    assert found == Note("closed_nodes", closed, "group video")
    assert user == Note("user", "root", "uid 0")


def test_a_group_without_a_name_is_told_by_its_number(dev: Path) -> None:
    make(dev / "nvidiactl", 0o660, 54321)
    found, _ = nodes.read(Tree(dev.parent))
    assert found.source == "group 54321"


def test_where_all_may_be_opened_there_is_nothing_to_tell(dev: Path) -> None:
    assert not list(nodes.read(Tree(dev.parent)))
    make(dev / "nvmap", 0o666)
    assert not list(nodes.read(Tree(dev.parent)))
