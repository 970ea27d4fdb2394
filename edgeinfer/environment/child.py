"""Asks one library about this machine, in a process of its own: importing or calling it may hang or crash.

Run as a script with the library's name as its argument and the parent's `sys.path` as a JSON list on stdin.
Prints one JSON array per answer: [field, value, source, exact], ["library", path] for a loaded TensorRT, or
["fault", message, remedy]. Answers are printed as they come, so that a crash loses only what follows.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[..., None]

_PR_SET_PDEATHSIG = 1
_ATTRIBUTES = {"sm_count": 16, "integrated": 18, "major": 75, "minor": 76}
"""CUdevice_attribute numbers, from cuda.h."""


class NvmlMemory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def ask_cuda(say: Say) -> None:
    """The CUDA driver: device 0 as programs see it. Creates no context."""
    cuda = _load("libcuda.so.1")
    if cuda is None:
        return
    source = "CUDA driver"
    number = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and number.value:
        say("cuda_driver", _cuda_version(number.value), source)
    status = cuda.cuInit(0)
    if status == 100:  # CUDA_ERROR_NO_DEVICE
        say("gpu_count", 0, source)
        return
    if status:
        say("fault", f"cuInit failed with error {status}")
        return
    cuda.cuDeviceGetCount(ctypes.byref(number))
    say("gpu_count", number.value, source)
    if number.value:
        _ask_device(cuda, say, source)


def _ask_device(cuda: ctypes.CDLL, say: Say, source: str) -> None:
    name = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGetName(name, 256, 0) == 0:
        say("gpu", name.value.decode("utf-8", "replace"), source)
    found = {key: _attribute(cuda, number) for key, number in _ATTRIBUTES.items()}
    if found["major"] is not None:
        say("compute_capability", f"{found['major']}.{found['minor']}", source)
    if found["sm_count"] is not None:
        say("sm_count", found["sm_count"], source)
    if found["integrated"] is not None:
        say("integrated", bool(found["integrated"]), source)
    memory = ctypes.c_size_t()
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), 0) == 0:
        say("gpu_memory", memory.value, source)


def _attribute(cuda: ctypes.CDLL, number: int) -> int | None:
    value = ctypes.c_int()
    return value.value if cuda.cuDeviceGetAttribute(ctypes.byref(value), number, 0) == 0 else None


def ask_cudart(say: Say) -> None:
    """The CUDA runtime that the loader finds."""
    for name in ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"):
        runtime = _load(name)
        number = ctypes.c_int()
        if runtime is not None and runtime.cudaRuntimeGetVersion(ctypes.byref(number)) == 0:
            say("cuda_runtime", _cuda_version(number.value), name, False)


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def ask_access(say: Say) -> None:
    """Whether Python reaches CUDA: it makes a stream, as the backend does first of all, the same way."""
    access = importlib.import_module("edgeinfer.cuda.access")
    errors = importlib.import_module("edgeinfer.errors")
    try:
        found = access.find()
        access.try_out(found)
    except errors.EdgeinferError as error:
        say("fault", error.message, error.hint)
        return
    say("cuda_access", found.name, found.instead or "it has made a stream")


def ask_decoding(say: Say) -> None:
    """What decodes video here, and why; it makes a CUDA context where NVDEC's library is installed."""
    video = importlib.import_module("edgeinfer.cuda.video")
    lack = video.lacks_here()
    if lack is None:
        engines = video.capabilities("H264", 8).get("num_decoder_engines", 1)
        say("video_decoder", "NVDEC", f"{video.MODULE}: {engines} decoder{'s' if engines > 1 else ''} on this GPU")
        return
    other = "nvv4l2decoder or FFmpeg" if lack.hint == video.GSTREAMER else "FFmpeg, on the CPU"
    say("video_decoder", other, f"NVDEC: {lack.why}; {lack.hint}")


def ask_nvml(say: Say) -> None:
    """NVML, the library behind nvidia-smi; on Jetson up to JetPack 6 it answers only in part."""
    nvml = _load("libnvidia-ml.so.1")
    if nvml is None:
        return
    source = "NVML"
    if status := nvml.nvmlInit_v2():
        say("fault", f"nvmlInit failed with error {status}")
        return
    text = ctypes.create_string_buffer(96)
    number = ctypes.c_int()
    if nvml.nvmlSystemGetDriverVersion(text, 96) == 0:
        say("driver", text.value.decode("utf-8", "replace"), source)
    if nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(number)) == 0:
        say("cuda_driver", _cuda_version(number.value), source)
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) == 0:
        _ask_nvml_device(nvml, handle, say, source)


def _ask_nvml_device(nvml: ctypes.CDLL, handle: ctypes.c_void_p, say: Say, source: str) -> None:
    name = ctypes.create_string_buffer(96)
    if nvml.nvmlDeviceGetName(handle, name, 96) == 0:
        say("gpu", name.value.decode("utf-8", "replace"), source)
    major, minor = ctypes.c_int(), ctypes.c_int()
    if nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0:
        say("compute_capability", f"{major.value}.{minor.value}", source)
    memory = NvmlMemory()
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
        say("gpu_memory", memory.total, source)


def ask_tensorrt(say: Say) -> None:
    """TensorRT's Python bindings, and how many DLA cores its runtime counts."""
    _ask_bindings("tensorrt", say)


def ask_tensorrt_rtx(say: Say) -> None:
    """TensorRT-RTX's Python bindings."""
    _ask_bindings("tensorrt_rtx", say)


def _ask_bindings(name: str, say: Say) -> None:
    # NVIDIA's meta package is called `name`; without it the wheel with the bindings works just as well.
    module = _import(name) or _import(f"{name}_bindings")
    if module is None:
        return
    version = str(module.__version__)
    # TensorRT up to 10.7 gives Python three parts of its version.
    say(name, version, f"import {module.__name__}", version.count(".") >= 3)
    say(f"{name}_module", str(Path(module.__file__).parent), f"import {module.__name__}")
    for path in _loaded("/libnvinfer.so", "/libtensorrt_rtx.so"):
        say("library", path)
    if name == "tensorrt":
        with contextlib.suppress(Exception):  # without a GPU there is no runtime, and so nobody to ask
            runtime = module.Runtime(module.Logger(module.Logger.ERROR))
            say("dla_cores", runtime.num_DLA_cores, "TensorRT runtime")


def _loaded(*names: str) -> list[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line[line.index("/") :] for line in lines if "/" in line}
    return sorted(path for path in paths if any(name in path for name in names))


def ask_onnxruntime(say: Say) -> None:
    """ONNX Runtime and its execution providers."""
    module = _import("onnxruntime")
    if module is not None:
        say("onnxruntime", str(module.__version__), "import onnxruntime")
        say("onnxruntime_providers", list(module.get_available_providers()), "import onnxruntime")


def _load(name: str) -> ctypes.CDLL | None:
    """The library, or None where it is not installed. An installed one that does not load raises OSError."""
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        if str(error).startswith(f"{name}: cannot open shared object file: No such file"):
            return None
        raise


def _import(name: str) -> Any:
    """The module, or None where it is not installed. An installed one that does not load raises."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


QUESTIONS: dict[str, Callable[[Say], None]] = {
    "cuda": ask_cuda,
    "cudart": ask_cudart,
    "nvml": ask_nvml,
    "access": ask_access,
    "tensorrt": ask_tensorrt,
    "tensorrt_rtx": ask_tensorrt_rtx,
    "onnxruntime": ask_onnxruntime,
    "decoding": ask_decoding,
}


def main(question: str) -> None:
    """Answers on the process's own stdout; what libraries print goes nowhere."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the thread that has started it waits for it
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path[:] = json.load(sys.stdin)

    def say(*answer: Any) -> None:
        os.write(answers, (json.dumps(answer) + "\n").encode())

    try:
        QUESTIONS[question](say)
    except BaseException as error:
        say("fault", f"{type(error).__name__}: {error}")
    os._exit(0)  # a driver's exit handlers may hang


if __name__ == "__main__":
    main(sys.argv[1])
