"""Which Python packages a build needs to convert an ONNX file first, as TensorRT 11 and TensorRT-RTX have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

from edgeinfer import recipe

LAST_WITH_FLAGS = 10
"""TensorRT's last major version that makes FP16 and INT8 of an FP32 file by itself."""
PACKAGES = {"fp16": ("onnx", "onnxconverter-common"), "int8": ("onnx", "onnxruntime")}
REMEDY = recipe.pip("install 'edgeinfer[build]'")


def needs_conversion(
    version: Sequence[int], flavour: str, precision: str, half: bool = False, quantized: bool = False
) -> tuple[str, ...]:
    """The packages that such a build needs, by their names on PyPI; empty where the file is built as it is.

    `version` and `flavour` (tensorrt, tensorrt_rtx) are TensorRT's, `precision` a concrete one. `half`, `quantized`:
    the file has FP16 weights, or Q/DQ nodes, and so is in its precision already.
    """
    by_flag = flavour == "tensorrt" and version[0] <= LAST_WITH_FLAGS
    return () if by_flag or half or quantized else PACKAGES.get(precision, ())


def missing(packages: Iterable[str], installed: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Those that are not installed here. Imports nothing."""
    there = installed or _installed
    return tuple(package for package in packages if not there(package))


def _installed(package: str) -> bool:
    return find_spec(package.replace("-", "_")) is not None
