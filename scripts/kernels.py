"""Compiles edgeinfer/gpu/kernels/frames.cu with NVRTC, a file per architecture: no device needs a compiler.

Two NVRTCs are used: CUDA 12's knows the older architectures, and what it makes loads on every driver from CUDA 12 on.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "edgeinfer" / "gpu" / "kernels"
SOURCE = FOLDER / "frames.cu"
# Code for X.y runs on every X.z with z >= y.
ARCHITECTURES = {
    "cuda_nvrtc/lib/libnvrtc.so.12": (72, 75, 80, 87, 90, 100, 101, 120),
    "cu13/lib/libnvrtc.so.13": (110,),
}


def main(check: bool) -> int:
    """Writes the files, or with `check` compares them. Returns an exit code."""
    stale = []
    for library, architectures in ARCHITECTURES.items():
        nvrtc = ctypes.CDLL(str(find(library)))
        for architecture in architectures:
            path, code = FOLDER / f"sm_{architecture}.cubin", compiled(nvrtc, architecture)
            if not path.exists() or path.read_bytes() != code:
                stale.append(path.name)
                if not check:
                    path.write_bytes(code)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return 1 if check and stale else 0


def find(library: str) -> Path:
    """The library's path inside NVIDIA's packages, which share the namespace `nvidia`."""
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or () if spec else ():
        if (Path(place) / library).exists():
            return Path(place) / library
    sys.exit(f"kernels: {library} is missing; run scripts/kernels, which installs it")


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
    sys.exit(main("--check" in sys.argv[1:]))
