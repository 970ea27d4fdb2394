"""An Orin for a process: a folder with the stub libraries and TensorRT's module, and the environment to use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.jetpack import stubs, tensorrt_stub

THOR = {"driver": 13000, "capability": "11.0", "name": "NVIDIA_Thor", "sms": 20, "memory": 131_000_000_000}
"""What the driver of JetPack 7 says on a Thor."""


@dataclass(frozen=True, slots=True)
class Orin:
    """What lies where. `settings` is read by the stub driver whenever it changes."""

    libraries: Path
    dist_packages: Path

    @property
    def settings(self) -> Path:
        """The driver's settings."""
        return self.libraries / "stub.conf"

    def set(self, **settings: object) -> None:
        """Changes the driver, also under running processes: driver="11040", cuMemAlloc_v2=2."""
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Of a process on this machine. The libraries lie where `ldconfig` would find them on a Jetson."""
        paths = [str(self.dist_packages), *filter(None, [base.get("PYTHONPATH")])]
        return {**base, "LD_LIBRARY_PATH": str(self.libraries), "PYTHONPATH": os.pathsep.join(paths)}


def make(folder: Path, tensorrt: str = "10.3.0", cuda: int = 12) -> Orin:
    """Into a folder; `cuda` is the major version of its runtime."""
    found = Orin(folder / "lib", folder / "dist-packages")
    found.libraries.mkdir(parents=True)
    for name in ("libcuda.so.1", f"libcudart.so.{cuda}"):
        shutil.copy(stubs.libraries() / name, found.libraries)
    stubs.libnvinfer(found.libraries, tensorrt)
    found.dist_packages.mkdir()
    tensorrt_stub.write(found.dist_packages, tensorrt)
    return found
