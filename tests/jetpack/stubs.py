"""Compiles the stub libraries, once for every state of their sources; needs gcc and g++."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeinfer.gpu.kernel_code import KERNELS

HERE = Path(__file__).parent
FRAMES = KERNELS / "frames.cu"
TENSORRT = {"10.3.0": (10, 3, 0, 30), "10.13.3.9": (10, 13, 3, 9)}
"""Versions of TensorRT's Python module → those of its library, as JetPack 6.2 and 7.1 ship them."""
CUDA = {"10.3.0": 12, "10.13.3.9": 13}
"""The major version of CUDA that each is for."""


def why_not() -> str:
    """Why nothing can be compiled here; empty where it can."""
    missing = [name for name in ("gcc", "g++") if shutil.which(name) is None]
    return f"{' and '.join(missing)} is not installed" if missing else ""


def libraries() -> Path:
    """A folder with libcuda.so.1, libcudart.so.12 and libcudart.so.13. Others may use it: it must not be changed."""
    own = [path for path in sorted(HERE.rglob("*")) if path.suffix in {".c", ".cpp", ".h"}]
    sources = [*own, FRAMES, Path(__file__)]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"edgeinfer-jetpack-{os.getuid()}-{digest}"
    if not folder.exists():
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        compile_all(made)
        made.chmod(0o755)
        try:
            made.rename(folder)
        except OSError:  # somebody else was as quick
            shutil.rmtree(made)
    return folder


def compile_all(folder: Path) -> None:
    """Into the folder, with nothing else left there."""
    flags = ["-O2", "-Wall", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE"]
    kernels = folder / "kernels.o"
    call("g++", "-std=c++17", *flags, f'-DFRAMES_CU="{FRAMES}"', "-c", str(HERE / "kernels.cpp"), "-o", str(kernels))
    driver = folder / "driver.o"
    call("gcc", "-std=gnu11", "-Wextra", *flags, "-c", str(HERE / "libcuda.c"), "-o", str(driver))
    share("g++", folder / "libcuda.so.1", str(driver), str(kernels), "-lpthread", "-ldl")
    for major, version in ((12, 12060), (13, 13000)):
        source = [str(HERE / "libcudart.c"), f"-DCUDART_VERSION={version}", "-std=gnu11", "-Wextra", *flags]
        share("gcc", folder / f"libcudart.so.{major}", *source, "-lpthread", "-ldl")
    kernels.unlink()
    driver.unlink()


def libnvinfer(folder: Path, module_version: str) -> Path:
    """Makes the library of that TensorRT in the folder: it exports the name that tells its version, nothing else."""
    parts = TENSORRT[module_version]
    path = folder / f"libnvinfer.so.{parts[0]}"
    source = f"int tensorrt_version_{'_'.join(map(str, parts))};\n"
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), "-xc", "-"]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def share(compiler: str, path: Path, *arguments: str) -> None:
    call(compiler, "-shared", f"-Wl,-soname,{path.name}", "-o", str(path), *arguments)


def call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
