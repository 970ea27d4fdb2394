"""The README's recipe, typed on a Jetson that boots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.jetpack.board import Jetson, Release
from tests.systemd_machine import ROOT

EDGEINFER = "/opt/edgeinfer/bin/edgeinfer"


@dataclass(frozen=True, slots=True)
class SetUp:
    """A Jetson on which the recipe was typed, and what each of its commands printed."""

    jetson: Jetson
    release: Release
    said: list[str]


def commands() -> list[str]:
    """Those of the README."""
    found = re.search(r"<!-- jetson recipe -->\n```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found
    return [line.removeprefix("$ ") for line in found[1].splitlines() if line.startswith("$ ")]


def set_up(jetson: Jetson, release: Release) -> SetUp:
    """Makes it this release and types the recipe, with the extra that the README names for it."""
    jetson.become(release)
    said = []
    for line in commands():
        said.append(jetson.typed(line.replace("jetpack6", release.extra)))
        if "/bin/pip install" in line:
            replace_runtime(jetson, release.python)
    return SetUp(jetson, release, said)


def replace_runtime(jetson: Jetson, python: str) -> None:
    """Puts the CUDA runtime inside cuda-python out of action: it does not work on a stub driver, see libcuda.c.

    The product then takes JetPack's libcudart, a stub here.
    """
    folder = f"/opt/edgeinfer/lib/python{python}/site-packages/cuda/bindings"
    jetson.script(f"""
        rm {folder}/runtime.*.so
        echo 'raise ImportError("not on a stub driver")' >{folder}/runtime.py""")
