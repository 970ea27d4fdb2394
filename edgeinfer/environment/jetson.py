"""What a Jetson's files say: L4T, JetPack, board, SoC, DLA cores, power mode.

Of what can carry a second GPU (IGX) nothing is said that holds for the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from edgeinfer.environment import formats, releases
from edgeinfer.environment.facts import Note
from edgeinfer.environment.formats import Package
from edgeinfer.environment.tree import Tree
from edgeinfer.recipe import DEVICE_TREES

_KERNEL = "sys/devices/soc0"


def read(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    """Yields l4t, jetpack, board, module, soc, compute_capability, integrated, dla_cores and power_mode."""
    releases_found = list(_l4t(tree, packages))
    yield from releases_found
    yield from _jetpack(packages, releases_found)
    yield from _device_tree(tree)
    yield from _dla(tree)
    yield from _power(tree)


def _l4t(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    release = formats.l4t_release(tree.text("etc/nv_tegra_release") or "")
    if release:
        yield Note("l4t", release, "/etc/nv_tegra_release")
    core = packages.get("nvidia-l4t-core")
    if core and (version := formats.upstream_version(core.version)):
        yield Note("l4t", version, f"dpkg nvidia-l4t-core {core.version}")


def _jetpack(packages: Mapping[str, Package], l4t: list[Note]) -> Iterator[Note]:
    package = packages.get("nvidia-jetpack")
    packaged = formats.upstream_version(package.version) if package else None
    release = releases.JETPACK_OF_L4T.get(l4t[0].value) if l4t else None
    if package and packaged:
        source = f"dpkg nvidia-jetpack {package.version}"
        if release and release.startswith(f"{packaged} "):  # "6.0 DP", whose package is called 6.0
            yield Note("jetpack", release, f"{source}, of L4T {l4t[0].value}")
        else:
            yield Note("jetpack", packaged, source)
    if release:
        yield Note("jetpack", release, f"the release of L4T {l4t[0].value}")


def _device_tree(tree: Tree) -> Iterator[Note]:
    folders = [str(folder) for folder in DEVICE_TREES]
    folder = next(filter(tree.exists, folders), folders[0])
    model = (tree.text(f"{folder}/model") or "").rstrip("\0")
    if model:
        yield Note("board", model, f"/{folder}/model")
    elif model := _kernels_name(tree):
        yield Note("board", model, f"/{_KERNEL}/machine")
    source = f"/{folder}/compatible"
    compatible = formats.tree_strings(tree.text(source[1:]) or "")
    if module := formats.module_of(compatible):
        yield Note("module", module, source)
    found = [Note("soc", soc, source)] if (soc := formats.soc_of(compatible)) else []
    found += list(_kernel(tree))
    yield from found
    if found and not _may_have_two_gpus(model, compatible):
        yield from _gpu_of(found[0])


def _kernel(tree: Tree) -> Iterator[Note]:
    """What the kernel says of the chip. Containers see it, while Docker hides the device tree from them."""
    if soc := formats.soc_of_id(tree.text(f"{_KERNEL}/family") or "", tree.text(f"{_KERNEL}/soc_id") or ""):
        yield Note("soc", soc, f"/{_KERNEL}/soc_id")


def _kernels_name(tree: Tree) -> str:
    is_tegra = (tree.text(f"{_KERNEL}/family") or "").strip() == "Tegra"
    return (tree.text(f"{_KERNEL}/machine") or "").strip() if is_tegra else ""


def _may_have_two_gpus(model: str, compatible: list[str]) -> bool:
    return "IGX" in model or "DRIVE" in model or any(entry.startswith("nvidia,p3740-") for entry in compatible)


def _gpu_of(soc: Note) -> Iterator[Note]:
    if soc.value.startswith("tegra"):
        yield Note("integrated", True, f"{soc.source}: Tegra")
    if capability := releases.CAPABILITY_OF_SOC.get(soc.value):
        yield Note("compute_capability", capability, f"that of every {soc.value}")


def _dla(tree: Tree) -> Iterator[Note]:
    devices = tree.names("sys/bus/platform/devices")
    cores = [name for name in devices if re.search(r"\.nvdla\d$", name)]
    if cores:  # none may also mean that this kernel calls them something else
        yield Note("dla_cores", len(cores), f"/sys/bus/platform/devices: {', '.join(cores)}")


def _power(tree: Tree) -> Iterator[Note]:
    status = tree.text("var/lib/nvpmodel/status")
    if status and (mode := formats.power_mode(status, tree.text("etc/nvpmodel.conf") or "")):
        yield Note("power_mode", mode, "/var/lib/nvpmodel/status")
