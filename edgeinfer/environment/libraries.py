"""What files say about TensorRT, ONNX Runtime and the Python packages that bind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from edgeinfer.environment import formats
from edgeinfer.environment.elf import tensorrt_version
from edgeinfer.environment.facts import Note
from edgeinfer.environment.formats import Package
from edgeinfer.environment.tree import Tree

LIBRARY_FOLDERS = (
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib",  # images of Yocto
    "usr/lib64",
    "usr/local/lib",
    "usr/local/tensorrt/lib",
    "usr/src/tensorrt/lib",
    "opt/tensorrt/lib",
    "run/current-system/sw/lib",  # NixOS
)
_LIBRARIES = {
    "tensorrt": re.compile(r"libnvinfer\.so(\.\d+)*"),
    "tensorrt_rtx": re.compile(r"libtensorrt_rtx\.so(\.\d+)*"),
}
_DISTRIBUTION = re.compile(r"([A-Za-z0-9_.]+)-(\d[A-Za-z0-9.!+]*)(-py[\d.]+)?\.(dist-info|egg-info)")
_FIELD_OF_DISTRIBUTION = (
    (r"tensorrt(_cu\d+)?(_bindings|_libs)?", "tensorrt"),
    (r"tensorrt_rtx(_cu\d+)?(_bindings|_libs)?", "tensorrt_rtx"),
    (r"onnx", "onnx"),
    (r"onnxconverter_common", "onnxconverter_common"),
    (r"onnxruntime(_gpu)?", "onnxruntime"),
    (r"nvidia_cudnn_cu\d+", "cudnn"),
    (r"nvidia_cuda_runtime(_cu\d+)?", "cuda_runtime"),
    (r"cuda_(bindings|python)", "cuda_python"),
    (r"jetson_stats", "jetson_stats"),
)


def read(tree: Tree, packages: Mapping[str, Package]) -> Iterator[Note]:
    """Yields tensorrt and tensorrt_rtx: libraries in the system's folders, and Debian packages."""
    for folder in LIBRARY_FOLDERS:
        yield from library_versions(tree, folder)
    for name, package in packages.items():
        if re.fullmatch(r"libnvinfer\d+", name) and (version := formats.upstream_version(package.version)):
            yield tensorrt_note("tensorrt", version, f"dpkg {name} {package.version}")


def library_versions(tree: Tree, folder: str) -> Iterator[Note]:
    """Yields the version of each TensorRT library in a folder; several names of one file count once."""
    seen = set()
    for name in tree.names(folder):
        field = next((field for field, pattern in _LIBRARIES.items() if pattern.fullmatch(name)), None)
        real = tree.resolve(f"{folder}/{name}") if field else None
        if field and real and real not in seen:
            seen.add(real)
            yield from library_version(tree, field, f"{folder}/{name}")


def library_version(tree: Tree, field: str, path: str) -> Iterator[Note]:
    """Yields the version that one library exports."""
    if tree.read(path, 1) == b"":  # what was mounted there while a container's image was made
        tree.note(path, "is empty; in a container, the host's file is not mounted over it")
    version = tensorrt_version(lambda offset, size: tree.read(path, size, offset) or b"")
    if version:
        yield Note(field, version, f"/{path}")


def distributions(names: Iterable[str], folder: str) -> Iterator[Note]:
    """Yields the versions in the names of Python packages' metadata folders (`name-version.dist-info`)."""
    for name in names:
        match = _DISTRIBUTION.fullmatch(name)
        if match and (field := _field_of(match[1])):
            yield tensorrt_note(field, match[2], f"{folder}/{name}")


def tensorrt_note(field: str, version: str, source: str) -> Note:
    """A reading; TensorRT's packages may give three parts of four: Python's up to 10.7, Debian's of 8.5.2."""
    return Note(field, version, source, exact=field != "tensorrt" or version.count(".") >= 3)


def _field_of(distribution: str) -> str | None:
    normal = re.sub(r"[-_.]+", "_", distribution).lower()
    return next((field for pattern, field in _FIELD_OF_DISTRIBUTION if re.fullmatch(pattern, normal)), None)
