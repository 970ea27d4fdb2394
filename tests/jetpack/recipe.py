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
    """Makes it this release and types the recipe, with the extra that the README names for it.

    The CUDA runtime inside cuda-python does not work on a stub driver (see libcuda.c), and says so: edgeinfer then
    takes JetPack's libcudart, a stub here.
    """
    jetson.become(release)
    said = [jetson.typed(line.replace("jetpack6", release.extra)) for line in commands()]
    return SetUp(jetson, release, said)
