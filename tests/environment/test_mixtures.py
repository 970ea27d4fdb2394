"""Machines put together at random: whatever is mixed, nothing crashes and nothing is claimed that no source said."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.environment import releases
from edgeinfer.environment.diagnosis import judge
from edgeinfer.environment.facts import Fact, Reading
from edgeinfer.environment.probe import _clean
from edgeinfer.environment.rules import find_problems
from tests.environment.compose import DOCKER, Part, core, cuda, debs, driver, lay, library, orin, release, soc0, system
from tests.environment.compose import python as python_of
from tests.environment.compose import tensorrt as tensorrt_of
from tests.environment.test_boards import ALL, HELD, REMOVED
from tests.environment.test_trees import probe_tree

l4ts = st.sampled_from([*releases.JETPACK_OF_L4T, "36.4.1"]) | st.from_regex(r"\d{1,2}\.\d\.\d", fullmatch=True)
versions = st.from_regex(r"\d{1,2}\.\d{1,2}\.\d\.\d{1,2}", fullmatch=True)
states = st.sampled_from(["install ok installed", HELD, REMOVED, "install ok unpacked"])
odd_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_NAME = r"(nvidia,|acme,x\+)?p3\d{3}-000\d(-super)?|nvidia,tegra\d{3}|[a-z]{1,5},[a-z0-9+-]{1,9}"
names = st.from_regex(_NAME, fullmatch=True)
folders = st.sampled_from(["usr/lib", "usr/lib/aarch64-linux-gnu", "run/current-system/sw/lib"])
pythons = st.sampled_from(["3.6", "3.10", "3.14"])
parts = st.one_of(
    st.builds(release, l4ts, st.sampled_from(["\n", "\r\n", ""]), st.sampled_from(["", "\ufeff", "x\n"])),
    st.builds(core, l4ts, states),
    st.builds(lambda model, entries: orin() + _tree(model, entries), odd_text, st.lists(names, max_size=4)),
    st.builds(soc0, st.integers(0, 50), odd_text),
    st.builds(lambda state, version: debs(state, nvidia_jetpack=f"{version}+b1"), states, versions),
    st.builds(library, versions, folders),
    st.builds(tensorrt_of, versions, st.sampled_from(["11.4", "12.6", "13.0"]), pythons),
    st.builds(python_of, pythons, st.sampled_from(["", "8.5.2"])),
    st.builds(cuda, versions, st.just(""), st.booleans()),
    st.builds(driver, versions),
    st.builds(system, st.sampled_from(["Ubuntu 22.04.5 LTS", "Poky", "NixOS 25.05"])),
    st.just(DOCKER),
    st.sampled_from([machine.tree for machine in ALL.values()]),
)


def _tree(model: str, entries: list[str]) -> Part:
    joined = "".join(f"{entry}\0" for entry in entries)
    files = {"model": model.encode(), "compatible": joined.encode()}
    return Part({f"proc/device-tree/{name}": data for name, data in files.items()})


def merged(found: list[Part]) -> Part:
    whole = Part()
    for part in found:
        whole += part
    return whole


def said(reading: Reading[object], tree: Part) -> bool:
    """Whether the source that a reading names is in the tree, and has the value in it."""
    value, source = str(reading.value), reading.source
    if package := re.match(r"dpkg (\S+) (\S+)", source):
        version, state = tree.packages[package[1]]
        usable = state.split()[2] in ("installed", "triggers-pending")
        return version.startswith(package[2].rstrip(",")) and usable
    if known := re.fullmatch(r"the release of L4T (\S+)", source):
        return releases.JETPACK_OF_L4T[known[1]] == value
    if known := re.fullmatch(r"that of every (tegra\d+)", source):
        return releases.CAPABILITY_OF_SOC[known[1]] == value
    path = re.split(r":? ", source.lstrip("/"), maxsplit=1)[0]
    if path in ("proc/device-tree/model", "proc/device-tree/compatible", "sys/devices/soc0/machine"):
        return ": Tegra" in source or value in _clean(tree.files[path].decode())
    link = tree.links.get("usr/local/cuda")
    path = path.replace("usr/local/cuda/", f"usr/local/{link}/") if link else path
    return source == "dpkg" or any(name.startswith(path) for name in (*tree.files, *tree.links, "var/lib/dpkg/status"))


@pytest.mark.slow
@given(st.lists(parts, max_size=6))
def test_random_mixtures(found: list[Part]) -> None:
    tree = merged(found)
    with tempfile.TemporaryDirectory() as folder:
        try:
            lay(Path(folder), tree)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            return  # two parts that no file system can hold
        env = probe_tree(Path(folder))
    problems = find_problems(env)
    verdict = judge(env, problems)
    assert verdict.reason
    assert all(problem.message and problem.remedy for problem in problems)
    for name, fact in env.facts().items():
        for reading in fact.readings:
            assert said(reading, tree), f"{name}: {reading}"
    has_release = "etc/nv_tegra_release" in tree.files or "nvidia-l4t-core" in tree.packages
    assert env.l4t.value is None or has_release
    assert env.jetpack.value is None or has_release or "nvidia-jetpack" in tree.packages
    assert (env.gpu, env.sm_count, env.cuda_driver) == (Fact(), Fact(), Fact()), "only a library could tell"


@pytest.mark.parametrize("name", ALL)
def test_every_reading_of_every_board_is_in_its_source(name: str) -> None:
    tree = ALL[name].tree
    with tempfile.TemporaryDirectory() as folder:
        env = probe_tree(lay(Path(folder), tree))
    assert all(said(reading, tree) for fact in env.facts().values() for reading in fact.readings)
