"""What files say about CUDA: toolkit, runtime, kernel driver, cuDNN."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from edgeinfer.environment import formats
from edgeinfer.environment.facts import Note
from edgeinfer.environment.formats import Package
from edgeinfer.environment.tree import Tree
from edgeinfer.environment.versions import parts

CUDNN_HEADERS = (
    "usr/include/cudnn_version.h",
    "usr/include/aarch64-linux-gnu/cudnn_version_v9.h",
    "usr/include/aarch64-linux-gnu/cudnn_version_v8.h",
    "usr/include/x86_64-linux-gnu/cudnn_version_v9.h",
    "usr/include/x86_64-linux-gnu/cudnn_version_v8.h",
)


def read(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    """Yields cuda, cuda_runtime, driver and cudnn."""
    toolkit = list(_toolkit(tree))
    yield from toolkit
    yield from _toolkit_packages(packages, [note.value for note in toolkit if note.field == "cuda"])
    yield from _packaged(packages, "cuda_runtime", r"cuda-cudart-\d+-\d+")
    yield from _driver(tree)
    yield from _packaged(packages, "cudnn", r"libcudnn\d+(-cuda-\d+)?")
    yield from _cudnn_headers(tree)


def _toolkit(tree: Tree) -> Iterator[Note]:
    path = "usr/local/cuda/version.json"
    text = tree.text(path)
    if text is not None:
        try:
            components = formats.cuda_components(text)
        except ValueError as error:
            tree.note(path, f"no CUDA version file: {error}")
            components = {}
        for field, component in (("cuda", "cuda"), ("cuda_runtime", "cuda_cudart")):
            if version := components.get(component):
                yield Note(field, version, f"/{path}")
    path = "usr/local/cuda/version.txt"
    if version := formats.cuda_text(tree.text(path) or ""):
        yield Note("cuda", version, f"/{path}")
    folder = tree.resolve("usr/local/cuda")
    if folder and (match := re.fullmatch(r"cuda-(\d+\.\d+)", folder.name)):
        yield Note("cuda", match[1], f"/usr/local/cuda is {folder.name}", exact=False)
    elif not tree.exists("usr/local/cuda"):
        yield from _only_folder(tree)


def _only_folder(tree: Tree) -> Iterator[Note]:
    """Images of Yocto have no link to their toolkit. Of several without one none is in use more than another."""
    folders = [name for name in tree.names("usr/local") if re.fullmatch(r"cuda-\d+\.\d+", name)]
    if len(folders) == 1:
        yield Note("cuda", folders[0].removeprefix("cuda-"), f"/usr/local/{folders[0]}", exact=False)


def _toolkit_packages(packages: Mapping[str, Package], chosen: list[str]) -> Iterator[Note]:
    """Several toolkits may be installed side by side; what is not the chosen one contradicts nothing."""
    for note in _packaged(packages, "cuda", r"cuda-toolkit-\d+-\d+"):
        if not chosen or any(parts(note.value)[:2] == parts(version)[:2] for version in chosen):
            yield note


def _packaged(packages: Mapping[str, Package], field: str, pattern: str) -> Iterator[Note]:
    for name, package in packages.items():
        if re.fullmatch(pattern, name) and (version := formats.upstream_version(package.version)):
            yield Note(field, version, f"dpkg {name} {package.version}")


def _driver(tree: Tree) -> Iterator[Note]:
    path = "proc/driver/nvidia/version"
    if version := formats.driver_version(tree.text(path) or ""):
        yield Note("driver", version, f"/{path}")


def _cudnn_headers(tree: Tree) -> Iterator[Note]:
    for path in CUDNN_HEADERS:
        if version := formats.cudnn_header(tree.text(path) or ""):
            yield Note("cudnn", version, f"/{path}", exact=False)
            return
