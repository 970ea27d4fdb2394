"""What files say about the system around the GPU: Python, its packages, operating system, memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from edgeinfer.environment import formats, libraries
from edgeinfer.environment.facts import Note
from edgeinfer.environment.formats import Package
from edgeinfer.environment.tree import Tree

_OURS = re.compile(r"nvidia-|cuda-|libnvinfer|libnvonnx|libcudnn|tensorrt|python3-libnvinfer")
_ARCH = {"arm64": "aarch64", "amd64": "x86_64"}


def read(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    """Yields os, packaging, arch, memory, container and system_python."""
    if name := formats.os_name(tree.text("etc/os-release") or ""):
        yield Note("os", name, "/etc/os-release")
    yield from _packaging(tree, packages)
    if "dpkg" in packages:
        debian = packages["dpkg"].arch
        yield Note("arch", _ARCH.get(debian, debian), "dpkg")
    if total := formats.mem_total(tree.text("proc/meminfo") or ""):
        yield Note("memory", total, "/proc/meminfo")
    for mark in (".dockerenv", "run/.containerenv", "run/secrets/kubernetes.io"):
        if tree.exists(mark):
            yield Note("container", True, f"/{mark}")
    yield from _system_python(tree, packages)


def _packaging(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    if packages:
        yield Note("packaging", "dpkg", "/var/lib/dpkg/status")
        return  # whatever else is installed here does not make up the system
    for name, folder in (("rpm", "var/lib/rpm"), ("opkg", "var/lib/opkg"), ("nix", "nix/store")):
        if tree.exists(folder):
            yield Note("packaging", name, f"/{folder}")


def unfinished(status: str) -> Iterator[Note]:
    """Yields unfinished: of dpkg's database, the packages that matter here."""
    names = [name for name in formats.dpkg_unfinished(status) if _OURS.match(name)]
    if names:
        yield Note("unfinished", ", ".join(names), "/var/lib/dpkg/status")


def _system_python(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    real = tree.resolve("usr/bin/python3")
    match = re.fullmatch(r"python(3\.\d+)", real.name) if real and tree.exists("usr/bin/python3") else None
    if not match:
        return
    yield Note("system_python", match[1], "/usr/bin/python3", exact=False)
    package = packages.get(f"python{match[1]}")
    if package and (version := formats.upstream_version(package.version)):
        yield Note("system_python", version, f"dpkg python{match[1]} {package.version}")


def system_packages(tree: Tree, python: str | None) -> Iterator[Note]:
    """Yields what the system's Python (`python`: its version) can import, as far as its folders tell.

    `tensorrt_system_module` comes from any Python's folder, the rest only from the folders of that version.
    """
    for folder in package_folders(tree):
        names = tree.names(folder)
        if "tensorrt" in names:
            yield Note("tensorrt_system_module", f"/{folder}/tensorrt", f"/{folder}")
        if _serves(folder, python):
            yield from libraries.distributions(names, f"/{folder}")
            for module in ("tensorrt", "tensorrt_rtx"):
                if module in names:
                    yield Note(f"{module}_module", f"/{folder}/{module}", f"/{folder}")


def package_folders(tree: Tree) -> list[str]:
    """The folders of Debian's Pythons for packages, in the order in which they are searched."""
    homes = ("usr/local/lib", "usr/lib")
    pythons = [f"{home}/{name}" for home in homes for name in tree.names(home) if re.fullmatch(r"python3[\d.]*", name)]
    return [f"{python}/{leaf}" for python in pythons for leaf in ("site-packages", "dist-packages")]


def _serves(folder: str, python: str | None) -> bool:
    tag = folder.split("/")[-2]
    return tag == "python3" or (python is not None and tag == "python" + ".".join(python.split(".")[:2]))
