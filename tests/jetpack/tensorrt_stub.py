"""Writes the package `tensorrt` as python3-libnvinfer would install it: the members of a real version, engines that
compute with ONNX Runtime on the stub driver. Like the real one it needs libnvinfer.so.10 to be imported."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.engine import fakes
from tests.jetpack import stubs
from tests.jetpack.stubs import CUDA, HERE, TENSORRT

INIT = '''"""TensorRT {version}: a stand-in, written by tests/jetpack/tensorrt_stub.py."""

import ctypes as _ctypes
import json as _json
import pathlib as _pathlib
import sys as _sys

_wheel = _pathlib.Path(__file__).parents[1] / "tensorrt_libs" / "libnvinfer.so.{major}"
try:
    _library = _ctypes.CDLL(str(_wheel) if _wheel.exists() else _wheel.name)
except OSError as _error:  # the real module is linked with it, and so the import fails
    raise ImportError(str(_error)) from None

from ._simulation.jetpack import process as _process

_process.become(
    _sys.modules[__name__],
    _json.loads((_pathlib.Path(__file__).parent / "_simulation" / "api.json").read_text()),
    {parts},
    {cuda},
)
'''
METADATA = "Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n"


def write(dist_packages: Path, version: str = "10.3.0") -> Path:
    """Writes the package and its metadata into the folder. Returns the package's folder."""
    package = dist_packages / "tensorrt"
    for name, files in {
        "engine": [Path(fakes.__file__), Path(fakes.__file__).with_name("plans.py")],
        "jetpack": [HERE / "process.py"],
    }.items():
        folder = package / "_simulation" / name
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder)
        (folder / "__init__.py").touch()
    (package / "_simulation" / "__init__.py").touch()
    shutil.copy(fakes.API / f"{version}.json", package / "_simulation" / "api.json")
    parts = TENSORRT[version]
    text = INIT.format(version=version, major=parts[0], parts=parts, cuda=CUDA[version])
    (package / "__init__.py").write_text(text)
    metadata = dist_packages / f"tensorrt-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(METADATA.format(version=version))
    return package


def write_wheels(site_packages: Path, version: str) -> None:
    """What `pip install tensorrt` brings: the module of another CUDA than JetPack's, with its library beside it."""
    write(site_packages, version)
    libraries = site_packages / "tensorrt_libs"
    libraries.mkdir()
    stubs.libnvinfer(libraries, version)
    for part in ("", "_bindings", "_libs"):
        name = f"tensorrt_cu{CUDA[version]}{part}"
        metadata = site_packages / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(METADATA.replace("tensorrt", name).format(version=version))
