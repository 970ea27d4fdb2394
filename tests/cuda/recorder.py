"""CUDA's libraries as the tables of `edgeinfer.cuda.library` have them, compiled: they note what they are given."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.cuda import library
from edgeinfer.cuda.library import Out

TYPES = {
    ctypes.c_int: "int",
    ctypes.c_uint: "unsigned",
    ctypes.c_size_t: "size_t",
    ctypes.c_uint64: "unsigned long long",
    ctypes.c_void_p: "void *",
    ctypes.c_char_p: "const char *",
}
HEAD = """
#include <stddef.h>
int version = 12060, status = 0, count = 0;
unsigned long long given[16];
const char *cudaGetErrorName(int code) { return code == 35 ? "cudaErrorInsufficientDriver" : "cudaErrorOther"; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_OTHER"; return code == 9999; }
int cuDriverGetVersion(int *out) { *out = version; return 0; }
typedef struct { unsigned char reserved[64]; } Handle;
int cudaIpcGetMemHandle(Handle *handle, void *address) {
    for (int i = 0; i < 64; i++) handle->reserved[i] = (unsigned char)(i * 7 % 5 * (i & 1));
    given[0] = (unsigned long long)address, count = 1;
    return status;
}
int cudaIpcOpenMemHandle(void **address, Handle handle, unsigned flags) {
    for (int i = 0; i < 8; i++) given[i] = ((unsigned long long *)handle.reserved)[i];
    given[8] = flags, count = 9, *address = (void *)0x700000000000;
    return status;
}
int cuDeviceGetName(char *name, int size, int device) { name[0] = 'O'; name[1] = 0; return status; }
"""


def source(calls: Mapping[str, tuple[Any, ...]]) -> str:
    """C: each function keeps its arguments in `given`, fills its results with 7, 8, … and returns `status`."""
    lines = []
    for name, slots in calls.items():
        if name == "cuDriverGetVersion":
            continue
        kinds = [f"{TYPES[slot.kind]} *" if isinstance(slot, Out) else TYPES[slot] for slot in slots]
        arguments = ", ".join(f"{kind} a{place}" for place, kind in enumerate(kinds)) or "void"
        body = ["count = 0;"]
        for place, slot in enumerate(slots):
            if isinstance(slot, Out):
                body.append(f"*a{place} = ({TYPES[slot.kind]})(size_t){7 + place};")
            else:
                body.append(f"given[count++] = (unsigned long long)a{place};")
        lines.append(f"int {name}({arguments}) {{ {' '.join(body)} return status; }}")
    return HEAD + "\n".join(lines)


def build(folder: Path, name: str, calls: Mapping[str, tuple[Any, ...]]) -> Path:
    """A shared library with these functions."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    path, text = folder / name, folder / f"{name}.c"
    text.write_text(source(calls))
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(path), str(text)], check=True)
    return path


def driver(folder: Path) -> Path:
    """The CUDA driver's library."""
    return build(folder, library.DRIVER, library.DRIVER_CALLS)


def runtime(folder: Path, name: str = "libcudart.so.12") -> Path:
    """The CUDA runtime's."""
    return build(folder, name, library.RUNTIME_CALLS)


def value(path: Path, name: str) -> ctypes.c_int:
    """An int of the library that tests may set: version, status."""
    return ctypes.c_int.in_dll(ctypes.CDLL(str(path)), name)


def arguments(path: Path) -> list[int]:
    """What the last call was given."""
    opened = ctypes.CDLL(str(path))
    given = (ctypes.c_ulonglong * 16).in_dll(opened, "given")
    return list(given)[: ctypes.c_int.in_dll(opened, "count").value]
