"""Compiles edgeinfer/gpu/kernels/frames.cu with NVRTC, a file per architecture: no device needs a compiler.

Code of a toolkit loads on every driver of the same major version, older ones too (CUDA's minor version compatibility;
machine code only, no PTX). So that nothing hangs on that promise, each architecture is compiled by the oldest CUDA 12
that knows it, and what only CUDA 13 knows by 13.0: no driver for the device is older.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "edgeinfer" / "gpu" / "kernels"
SOURCE = FOLDER / "frames.cu"
COMPILERS = ROOT / "build" / "nvrtc"
ARCHITECTURES = {
    "nvidia-cuda-nvrtc-cu12==12.0.140": (72, 75, 80, 87, 89, 90),
    "nvidia-cuda-nvrtc-cu12==12.8.93": (100, 101, 120),
    "nvidia-cuda-nvrtc-cu12==12.9.86": (103,),
    "nvidia-cuda-nvrtc==13.0.88": (110,),
}
"""NVIDIA's package with the compiler → what it compiles for. Which GPU gets which: `gpu/kernel_code.py`."""


def main(check: bool) -> int:
    """Writes the files, or with `check` compares them. Returns an exit code."""
    stale = []
    for package, architectures in ARCHITECTURES.items():
        nvrtc = loaded(find(package))
        for architecture in architectures:
            path, code = FOLDER / f"sm_{architecture}.cubin", compiled(nvrtc, architecture)
            if not path.exists() or path.read_bytes() != code:
                stale.append(path.name)
                if not check:
                    path.write_bytes(code)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return 1 if check and stale else 0


def install() -> None:
    """Puts every compiler into a folder of its own: an environment can have one version of a package."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for package in ARCHITECTURES:
        if not list(folder(package).glob("**/libnvrtc.so.*")):
            subprocess.run([*pip, "--target", str(folder(package)), package], check=True)  # noqa: S603 (pip)


def folder(package: str) -> Path:
    """Where a compiler is installed."""
    return COMPILERS / package.replace("==", "-")


def find(package: str) -> Path:
    """The compiler's library; ends the process where it is not installed."""
    for library in sorted(folder(package).glob("**/libnvrtc.so.*")):
        return library
    sys.exit(f"kernels: {package} is missing; run scripts/kernels, which installs it")


def loaded(library: Path) -> ctypes.CDLL:
    """The compiler, with the part of it that it would look for where the loader does."""
    for part in library.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(part))
    return ctypes.CDLL(str(library))


def compiled(nvrtc: ctypes.CDLL, architecture: int) -> bytes:
    """The cubin of the source for one architecture; ends the process with the compiler's log where it fails."""
    program = ctypes.c_void_p()
    ask(nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), b"frames.cu", 0, None, None))
    options = (ctypes.c_char_p * 2)(f"--gpu-architecture=sm_{architecture}".encode(), b"--std=c++17")
    if nvrtc.nvrtcCompileProgram(program, len(options), options):
        sys.exit(f"sm_{architecture}: {answer(nvrtc, program, 'ProgramLog').decode(errors='replace')}")
    return answer(nvrtc, program, "CUBIN")


def answer(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, name: str) -> bytes:
    """What NVRTC holds of a program: its log or its code."""
    size = ctypes.c_size_t()
    ask(getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    ask(getattr(nvrtc, f"nvrtcGet{name}")(program, buffer))
    return buffer.raw


def ask(status: int) -> None:
    """Ends the process where NVRTC failed."""
    if status:
        sys.exit(f"kernels: NVRTC error {status}")


if __name__ == "__main__":
    if "--install" in sys.argv[1:]:
        install()
    sys.exit(main("--check" in sys.argv[1:]))
