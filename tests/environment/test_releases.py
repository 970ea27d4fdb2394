"""The tables of releases, written down a second time from NVIDIA's pages: a slip in one digit shows."""

from __future__ import annotations

import pytest

from edgeinfer.environment import releases
from edgeinfer.environment.versions import parts

# https://developer.nvidia.com/embedded/jetson-linux-archive: JetPack, and the Jetson Linux releases in it
JETPACKS = """
7.2.2 39.2.2 | 7.2.1 39.2.1 | 7.2 39.2.0 | 7.2_EA 39.0.0 | 7.1 38.4.0 | 7.0 38.2.0 38.2.1 38.2.2
6.2.3 36.5.2 | 6.2.2 36.5.0 | 6.2.1 36.4.4 36.4.7 | 6.2 36.4.3 | 6.1 36.4.0 36.4.2 | 6.0 36.3.0 | 6.0_DP 36.2.0
5.1.6 35.6.4 | 5.1.5 35.6.1 35.6.2 35.6.3 | 5.1.4 35.6.0 | 5.1.3 35.5.0 | 5.1.2 35.4.1 | 5.1.1 35.3.1 | 5.1 35.2.1
5.0.2 35.1.0 | 5.0.1_DP 34.1.1 | 5.0_DP 34.1.0
4.6.6 32.7.6 | 4.6.5 32.7.5 | 4.6.4 32.7.4 | 4.6.3 32.7.3 | 4.6.2 32.7.2 | 4.6.1 32.7.1 | 4.6 32.6.1
4.5.1 32.5.1 32.5.2 | 4.5 32.5.0 | 4.4.1 32.4.4 | 4.4 32.4.3
"""


def test_the_jetpack_of_every_l4t() -> None:
    rows = [row.split() for line in JETPACKS.strip().splitlines() for row in line.split("|")]
    assert {l4t: jetpack.replace("_", " ") for jetpack, *l4ts in rows for l4t in l4ts} == releases.JETPACK_OF_L4T


def test_a_newer_l4t_never_has_an_older_jetpack() -> None:
    ordered = sorted(releases.JETPACK_OF_L4T, key=parts)
    jetpacks = [parts(releases.JETPACK_OF_L4T[l4t]) for l4t in ordered]
    assert jetpacks == sorted(jetpacks)


@pytest.mark.parametrize(
    ("soc", "capability"),
    [("tegra210", "5.3"), ("tegra186", "6.2"), ("tegra194", "7.2"), ("tegra234", "8.7"), ("tegra264", "11.0")],
)
def test_the_capability_of_every_soc(soc: str, capability: str) -> None:
    """From https://developer.nvidia.com/cuda-gpus, Jetson products."""
    assert releases.CAPABILITY_OF_SOC[soc] == capability
    assert len(releases.CAPABILITY_OF_SOC) == 5


def test_the_oldest_driver_of_every_cuda_newest_first() -> None:
    """CUDA Compatibility, minor version compatibility: >= 450 for 11, >= 525 for 12, >= 580 for 13."""
    assert list(releases.DRIVER_FOR_CUDA.items()) == [(13, 580), (12, 525), (11, 450)]


def test_the_tensorrt_of_every_jetpack() -> None:
    orin = dict.fromkeys(("6.1", "6.2", "6.2.1", "6.2.2", "6.2.3"), ("10.3.0.30",))
    first = dict.fromkeys(("6.0 DP", "6.0"), ("8.6.2.3",))
    thor = {"7.0": ("10.13.2.6", "10.13.3.9"), "7.1": ("10.13.3.9",), "7.2": ("10.16.2.10",), "7.2.1": ("10.16.2.10",)}
    assert {**orin, **first, **thor} == releases.TENSORRT_OF_JETPACK
    assert set(releases.TENSORRT_OF_JETPACK) <= set(releases.JETPACK_OF_L4T.values())
