"""A PC with a GPU and PyNvVideoCodec, for a process: the stub libraries, and the environment to use them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.jetpack import stubs

MODULE = "from tests.nvdec.stub import *  # noqa: F403\n"
ROOT = Path(__file__).parents[2]


def make(folder: Path) -> dict[str, str]:
    """Into a folder. Returns the environment."""
    libraries, packages = folder / "lib", folder / "packages"
    libraries.mkdir(parents=True)
    for name in ("libcuda.so.1", "libcudart.so.12"):
        shutil.copy(stubs.libraries() / name, libraries)
    (packages / "PyNvVideoCodec").mkdir(parents=True)
    (packages / "PyNvVideoCodec" / "__init__.py").write_text(MODULE)
    (packages / "tensorrt").mkdir()  # it is only looked for
    (packages / "tensorrt" / "__init__.py").touch()
    paths = [str(packages), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    stub = "integrated=0 capability=9.0 name=H100"
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": os.pathsep.join(paths),
        "EDGEINFER_STUB": stub,
    }
