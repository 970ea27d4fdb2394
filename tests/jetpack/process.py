"""The simulated TensorRT in a process of its own: its engines run on the stub driver, and compute with ONNX Runtime.

A plan holds the network itself. `tensorrt_stub` copies this file into the package `tensorrt` that it writes.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import hashlib
import itertools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..engine import fakes  # relative: it is copied together with this

INSUFFICIENT_DRIVER, ILLEGAL_ADDRESS, LAUNCH_FAILED = 35, 700, 719
MOST_KNOWN = 6
Step = Callable[[], int]


class Gpu:
    """The stub driver of this process. No DLA: `capturing` is asked for those alone."""

    capturing = ()

    def __init__(self) -> None:
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.driver.edgeinfer_stub_translate.restype = ctypes.c_void_p
        self.driver.edgeinfer_stub_translate.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
        self._steps: dict[int, tuple[Step, bool]] = {}
        self._numbers = itertools.count(1)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        self._run = kind(self._perform)
        self.driver.edgeinfer_stub_enqueue.argtypes = (ctypes.c_void_p, kind, ctypes.c_void_p)

    def enqueue(self, stream: int, step: Step) -> None:
        """Puts work into a stream; into a graph, where it may be done more than once."""
        capturing, number = ctypes.c_int(), next(self._numbers)
        self.driver.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(capturing))
        self._steps[number] = step, bool(capturing.value)
        self.driver.edgeinfer_stub_enqueue(stream, self._run, number)

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array over device memory; None where a GPU would speak of an illegal address."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        host = self.driver.edgeinfer_stub_translate(address, size)
        if host is None:
            return None
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host)).view(dtype).reshape(shape)

    def _perform(self, number: int) -> int:
        step, again = self._steps[number]
        if not again:
            del self._steps[number]
        try:
            return step()
        except Exception:
            traceback.print_exc()
            return LAUNCH_FAILED


def compute(gpu: Gpu, context: Any) -> Step:
    """Runs the network on what lies at the addresses when its turn comes; shapes and addresses are those of now."""
    run = network(context._io["model"])
    shapes, addresses, described = dict(context._shapes), dict(context._addresses), context._io
    count = next(iter(shapes.values()))[0]

    def bound(item: list[Any]) -> Any:
        name, shape, dtype = item
        sizes = shapes.get(name) or tuple(count if size < 0 else size for size in shape)
        return gpu.array(addresses[name], sizes, dtype)

    def step() -> int:
        inputs = {item[0]: bound(item) for item in described["inputs"]}
        outputs = [bound(item) for item in described["outputs"]]
        if any(array is None for array in (*inputs.values(), *outputs)):
            return ILLEGAL_ADDRESS
        for array, made in zip(outputs, run([item[0] for item in described["outputs"]], inputs), strict=True):
            array[...] = made
        return 0

    return step


class Network:
    """ONNX Runtime's session of the network in a plan. What it was asked before it still knows: a backend that warms
    up, or is measured, asks the same again and again, which takes a GPU no time.
    """

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self._session = onnxruntime.InferenceSession(
            base64.b64decode(model), options, providers=["CPUExecutionProvider"]
        )
        self._known: dict[bytes, list[Any]] = {}

    def __call__(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        """The outputs of these names, not to be changed."""
        digest = hashlib.blake2b(repr([(name, array.shape) for name, array in inputs.items()]).encode())
        for array in inputs.values():
            digest.update(array)
        key = digest.digest()
        if key not in self._known:
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = self._session.run(names, inputs)
        return self._known[key]


@functools.lru_cache(maxsize=4)
def network(model: str) -> Network:
    """One for all contexts of an engine."""
    return Network(model)


def describe(network: Any, config: Any) -> dict[str, Any]:
    """What the plan holds: inputs and outputs, the largest batch, the network."""
    largest = max((shapes[2][0] for profile in config._profiles for shapes in profile._shapes.values()), default=1)
    model = base64.b64encode(network._model.path.read_bytes()).decode()
    single = {"single": True} if len(config._profiles) > 1 else {}
    return {**fakes.describe(network, config), "largest": largest, "model": model, **single}


def greet(gpu: Gpu, cuda: int, module: Any, logger: Any) -> None:
    """Without a GPU, or with a driver that is too old for the CUDA that it was built with, the real factories say so in
    the log and return nothing, which Python hears as a TypeError.
    """
    version = ctypes.c_int()
    gpu.driver.cuDriverGetVersion(ctypes.byref(version))
    status = gpu.driver.cuInit(0) or (INSUFFICIENT_DRIVER if version.value // 1000 < cuda else 0)
    if status:
        fakes.log(module, logger, "ERROR", f"CUDA initialization failure with error: {status}")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    context = ctypes.c_void_p()  # as TensorRT's first call of the CUDA runtime would make it current in this thread
    gpu.driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    gpu.driver.cuCtxSetCurrent(context)


def become(module: Any, api: dict[str, Any], version: tuple[int, int, int, int], cuda: int) -> None:
    """Makes a module this TensorRT, of this major version of CUDA."""
    gpu = Gpu()
    world = fakes.World(version, b"ftrt")
    world.cuda = gpu
    world.compute = functools.partial(compute, gpu)
    world.describe = describe
    world.greet = functools.partial(greet, gpu, cuda)
    world.dla_cores = int(os.environ.get("EDGEINFER_STUB_DLA", "0"))
    fakes.fill(module, api, world)
    module.__file__ = str(Path(__file__).parents[2] / "__init__.py")
