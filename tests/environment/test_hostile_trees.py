"""Files that nobody would write: the probe reports what it can't use and goes on."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from edgeinfer.environment import Environment
from edgeinfer.environment.rules import find_problems
from edgeinfer.errors import InputError
from tests.environment.test_trees import TREES, probe_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(TREES / "jetpack-6.2.1", tmp_path / "t", symlinks=True)
    return tmp_path / "t"


def files(tree: Path) -> list[Path]:
    return [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]


def faults(env: Environment) -> dict[str, str]:
    return {fault.source: fault.message for fault in env.faults}


@pytest.mark.parametrize("seed", range(20))
def test_binary_junk_in_every_file(tree: Path, seed: int) -> None:
    rng = random.Random(seed)
    for path in files(tree):
        path.write_bytes(path.read_bytes()[: rng.randrange(40)] + rng.randbytes(rng.randrange(3000)))
    env = probe_tree(tree)
    assert env.jetpack.value in (None, "6.2.1")
    assert env.cuda.value is None
    assert "/usr/local/cuda/version.json" in faults(env)


@pytest.mark.slow
def test_a_cut_or_changed_library_gives_no_version_or_the_true_one(tree: Path) -> None:
    library = tree / "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0"
    whole = library.read_bytes()
    (tree / "var/lib/dpkg/status").unlink()
    shutil.rmtree(tree / "usr/lib/python3.10")
    for cut in range(len(whole)):
        library.write_bytes(whole[:cut])
        assert probe_tree(tree).tensorrt.value in (None, "10.3.0.30")
    for at in range(176):  # the headers: each byte turned over
        library.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert probe_tree(tree).tensorrt.value in (None, "10.3.0.30")


def test_control_characters_do_not_reach_the_terminal(tree: Path) -> None:
    (tree / "proc/device-tree/model").write_bytes(b"\x1b[2J\x1b]0;owned\x07Jetson\r\n[red]\xff\0")
    board = probe_tree(tree).board.value
    assert board is not None
    assert board.isprintable()
    assert "Jetson" in board


def test_huge_files_are_read_in_part(tree: Path) -> None:
    for name in ("etc/nv_tegra_release", "proc/device-tree/model", "usr/local/cuda/version.json"):
        os.truncate(tree / name, 1 << 40)  # sparse: a terabyte
    env = probe_tree(tree)
    assert env.l4t.value == "36.4.7"
    assert "/usr/local/cuda/version.json" in faults(env)


def test_links_in_a_circle(tree: Path) -> None:
    for name in (
        "etc/nv_tegra_release",
        "usr/lib/aarch64-linux-gnu/libnvinfer.so.10",
        "proc/device-tree/model",
    ):
        (tree / name).unlink()
        (tree / name).symlink_to(Path(name).name)
    env = probe_tree(tree)
    assert env.l4t.value == "36.4.7"
    assert faults(env)["/etc/nv_tegra_release"] == "too many symbolic links"


def test_a_pipe_that_nobody_writes_to_does_not_hold_the_probe(tree: Path) -> None:
    for name in ("etc/nv_tegra_release", "var/lib/dpkg/status"):
        (tree / name).unlink()
        os.mkfifo(tree / name)
    assert faults(probe_tree(tree))["/etc/nv_tegra_release"] == "not a regular file"


def test_folders_where_files_should_be_and_files_where_folders_should_be(tree: Path) -> None:
    for path in files(tree):
        path.unlink()
        path.mkdir()
    assert probe_tree(tree).l4t.value is None
    shutil.rmtree(tree / "usr")
    (tree / "usr").write_text("")
    assert probe_tree(tree).cuda.value is None


def test_what_may_not_be_read_is_a_problem_with_a_remedy(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def deny(path: Path, flags: int) -> int:
        if path.name == "nv_tegra_release":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", deny)  # the tests may run as root, whom no mode keeps out
    env = probe_tree(tree)
    assert env.l4t.source == "dpkg nvidia-l4t-core 36.4.7-20250918154033"
    (problem,) = (problem for problem in find_problems(env) if problem.code == "unreadable")
    assert "/etc/nv_tegra_release: Permission denied" in problem.message


@pytest.mark.parametrize("name", ["nothing-here", "file", "nul\0byte"])
def test_a_root_that_is_no_folder_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder that can be read"):
        probe_tree(tmp_path / name)
