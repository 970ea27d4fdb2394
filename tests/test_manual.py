"""Man pages: one of each command, well-formed, in the wheel where `man` looks."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import click
import pytest

from edgeinfer.cli import _command_names, edgeinfer

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "man").glob("*.1"))


def test_there_is_a_page_of_the_program_and_of_each_command() -> None:
    wanted = {"edgeinfer.1", *(f"edgeinfer-{name}.1" for name in _command_names())}
    assert {page.name for page in PAGES} == wanted


@pytest.mark.parametrize("name", _command_names())
def test_a_page_has_every_option_and_every_part(name: str) -> None:
    text = (ROOT / "docs" / "man" / f"edgeinfer-{name}.1").read_text().replace("\\-", "-")
    command = edgeinfer.get_command(click.Context(edgeinfer), name)
    assert command is not None
    parts = dict(command.commands) if isinstance(command, click.Group) else {}
    for each in (command, *parts.values()):
        for option in each.params:
            assert not isinstance(option, click.Option) or f"\\fB{option.opts[0]}" in text, option.opts
    for part in parts:
        assert f".SS {name} {part}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_well_formed(page: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    argv = ["groff", "-man", "-ww", "-K", "utf8", "-T", "utf8", "-z", str(page)]
    process = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.slow
def test_man_finds_the_pages_of_a_wheel_that_is_installed(wheel: Path, tmp_path: Path) -> None:
    for name in zipfile.ZipFile(wheel).namelist():
        if (place := name.partition(".data/data/")[2]).startswith("share/man/"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_bytes(zipfile.ZipFile(wheel).read(name))
    assert (tmp_path / "share" / "man" / "man1" / "edgeinfer-run.1").exists()
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    (tmp_path / "bin").mkdir()
    env = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "MANWIDTH": "80",
        "LC_ALL": "C.UTF-8",
    }
    process = subprocess.run(["man", "edgeinfer-run"], env=env, capture_output=True, text=True, check=True)  # noqa: S607
    assert "SYNOPSIS\n       edgeinfer run [OPTIONS]\n" in process.stdout
    assert "--source [NAME=]URI" in process.stdout
