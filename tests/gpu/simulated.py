"""A GPU in ordinary memory: CUDA's calls as the product makes them, run as late as CUDA may run them.

Device addresses are host addresses. What is put into a stream waits there until somebody asks for an event after it,
so that a buffer which is used again too early shows. `Simulation.fail` makes a call go wrong; while `hold` is set,
nothing ends.
"""

# ruff: noqa: N802, N815 (CUDA's own names)

from __future__ import annotations

import ctypes
import enum
import itertools
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from edgeinfer.config.card import DecoderCard, InputCard, Model, ModelCard
from edgeinfer.cuda import access
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.gpu import cuda
from edgeinfer.gpu.kernel_code import CANDIDATE
from edgeinfer.pictures.colour import coefficients
from edgeinfer.types import Colour, Float32
from tests.drawn import bgr
from tests.engine.fakes import fake_toolkit
from tests.engine.plans import make_plan

ECHO = {
    "inputs": [["images", [-1, 3, 8, 8], "float32"]],
    "outputs": [["boxes", [-1, 48, 4], "float32"], ["scores", [-1, 48, 4], "float32"]],
    "largest": 4,
}
"""A network whose outputs are its input in another shape."""

INPUT = InputCard(name="images", width=8, height=8, color="rgb", mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0])

Step = Callable[[], object]


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorUnknown = 999


class Kind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class Attribute(enum.IntEnum):
    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrIntegrated = 18
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class Simulation:
    """The state of the device. `fail`: function → the statuses of its next calls. `calls`: how often each was made."""

    def __init__(self) -> None:
        self.fail: dict[str, list[int]] = {}
        self.calls: dict[str, int] = {}
        self.hold = False
        self.attributes = {
            Attribute.cudaDevAttrMultiProcessorCount: 8,
            Attribute.cudaDevAttrComputeCapabilityMajor: 8,
            Attribute.cudaDevAttrComputeCapabilityMinor: 7,
        }
        self.memory: dict[int, Any] = {}
        self.registered: set[int] = set()
        self.streams: dict[int, list[Step]] = {}
        self.events: dict[int, int] = {}
        self.graphs: dict[int, list[Step]] = {}
        self.capturing: dict[int, list[Step]] = {}
        self.modules: set[int] = set()
        self.functions: dict[int, str] = {}
        self._numbers = itertools.count(1)

    @property
    def alive(self) -> int:
        """What was made on the device and not freed yet."""
        return sum(map(len, (self.memory, self.streams, self.events, self.graphs, self.modules)))

    def enqueue(self, stream: int, step: Step) -> None:
        """Puts work into a stream, or into the graph that is being captured from it."""
        (self.capturing if stream in self.capturing else self.streams)[stream].append(step)

    def settle(self, stream: int) -> bool:
        """Does what waits in a stream. Whether it is done."""
        if self.hold:
            return False
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return True

    def reaches(self, address: int) -> bool:
        """Whether the device may copy from or to this host address by itself."""
        own = any(start <= address < start + len(buffer) for start, buffer in self.memory.items())
        return own or address in self.registered

    def expect(self, address: int) -> None:
        """What a real device would call an illegal address ends the test."""
        assert self.reaches(address), "an illegal address"

    def next_status(self, name: str) -> int:
        self.calls[name] = self.calls.get(name, 0) + 1
        waiting = self.fail.get(name)
        return waiting.pop(0) if waiting else 0

    def number(self) -> int:
        return next(self._numbers)


class Runtime(ModuleType):
    """`cuda.bindings.runtime` and `cuda.bindings.driver` as one module: calls give a status, then what is beside it."""

    cudaError_t, cudaMemcpyKind, cudaDeviceAttr, cudaStreamCaptureMode = Status, Kind, Attribute, CaptureMode
    cudaStreamNonBlocking, cudaEventDisableTiming, cudaEventBlockingSync = 1, 2, 1
    cudaHostAllocMapped, cudaHostRegisterMapped = 2, 2

    def __init__(self, device: Simulation) -> None:
        super().__init__("cuda.bindings.runtime")
        self._functions = Functions(device)
        self._device = device

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        function = getattr(self._functions, name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            status, values = self._device.next_status(name), ()
            if not status:
                try:
                    values = function(*arguments)
                except KeyError:
                    status = int(Status.cudaErrorInvalidValue)
            if status:
                kind = function.__annotations__["return"]
                return (named(status), *[0] * {"None": 0, "Status": 0, "int": 1, "bytes": 1, "Any": 1}.get(kind, 2))
            if isinstance(values, Status):
                return (values,)
            beside = values if isinstance(values, tuple) else () if values is None else (values,)
            return (Status.cudaSuccess, *beside)

        return call


def named(status: int) -> Any:
    with suppress(ValueError):
        return Status(status)
    return status


class Functions:
    """What the calls do. An unknown handle or address is a KeyError, and so an invalid value."""

    def __init__(self, device: Simulation) -> None:
        self._device = device

    # --- memory

    def cudaMalloc(self, size: int) -> int:
        buffer = ctypes.create_string_buffer(b"\xcc" * size, size)
        self._device.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        assert flags == Runtime.cudaHostAllocMapped
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> None:
        del self._device.memory[address]

    cudaFreeHost = cudaFree

    def cudaMemGetInfo(self) -> tuple[int, int]:
        return 5000, 8000

    def cudaHostRegister(self, address: int, size: int, flags: int) -> None:
        assert flags == Runtime.cudaHostRegisterMapped
        self._device.registered.add(address)

    def cudaHostUnregister(self, address: int) -> None:
        self._device.registered.remove(address)

    def cudaHostGetDevicePointer(self, address: int, flags: int) -> int:
        assert flags == 0
        return address

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> None:
        assert kind != Kind.cudaMemcpyHostToHost
        own = target if kind == Kind.cudaMemcpyHostToDevice else source

        def copy() -> None:
            self._device.expect(own)
            ctypes.memmove(target, source, size)

        self._device.enqueue(stream, copy)
        if kind == Kind.cudaMemcpyDeviceToHost and not self._device.reaches(target):
            self._device.settle(stream)  # pageable: waited for

    def cudaMemcpy2DAsync(  # noqa: PLR0913, PLR0917 (CUDA's own)
        self, target: int, target_pitch: int, source: int, pitch: int, width: int, rows: int, kind: Any, stream: int
    ) -> None:
        for row in range(rows):
            self.cudaMemcpyAsync(target + row * target_pitch, source + row * pitch, width, kind, stream)

    def cudaMemsetAsync(self, target: int, value: int, size: int, stream: int) -> None:
        def fill() -> None:
            self._device.expect(target)
            ctypes.memset(target, value, size)

        self._device.enqueue(stream, fill)

    # --- streams, events, graphs

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        assert flags == Runtime.cudaStreamNonBlocking
        number = self._device.number()
        self._device.streams[number] = []
        return number

    def cudaStreamDestroy(self, stream: int) -> None:
        del self._device.streams[stream]

    def cudaStreamSynchronize(self, stream: int) -> None:
        self._device.settle(stream)

    def cudaEventCreateWithFlags(self, flags: int) -> int:
        assert flags == Runtime.cudaEventDisableTiming | Runtime.cudaEventBlockingSync
        number = self._device.number()
        self._device.events[number] = 0
        return number

    def cudaEventDestroy(self, event: int) -> None:
        del self._device.events[event]

    def cudaEventRecord(self, event: int, stream: int) -> None:
        assert event in self._device.events
        assert stream in self._device.streams
        self._device.events[event] = stream

    def cudaEventQuery(self, event: int) -> Status:
        stream = self._device.events[event]
        done = not stream or self._device.settle(stream)
        return Status.cudaSuccess if done else Status.cudaErrorNotReady

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        assert stream in self._device.streams
        if self._device.events[event]:
            self._device.settle(self._device.events[event])

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> None:
        assert mode == CaptureMode.cudaStreamCaptureModeThreadLocal
        self._device.capturing[stream] = []

    def cudaStreamEndCapture(self, stream: int) -> int:
        graph = self._device.number()
        self._device.graphs[graph] = self._device.capturing.pop(stream)
        return graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> int:
        executable = self._device.number()
        self._device.graphs[executable] = self._device.graphs[graph]
        return executable

    def cudaGraphDestroy(self, graph: int) -> None:
        del self._device.graphs[graph]

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: int, stream: int) -> None:
        for step in self._device.graphs[graph]:
            self._device.enqueue(stream, step)

    # --- the device

    def cudaDeviceGetAttribute(self, attribute: Any, device: int) -> int:
        return self._device.attributes.get(attribute, 0)

    def cudaGetDeviceCount(self) -> int:
        return 1

    def cuInit(self, flags: int) -> None:
        assert flags == 0

    def cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def cuDeviceGetName(self, size: int, device: int) -> bytes:
        return b"Orin".ljust(size, b"\0")

    def cudaRuntimeGetVersion(self) -> int:
        return 12060

    def cudaGetLastError(self) -> Status:
        return Status.cudaSuccess

    # --- kernels

    def cuModuleLoadData(self, code: bytes) -> int:
        assert code
        number = self._device.number()
        self._device.modules.add(number)
        return number

    def cuModuleUnload(self, module: int) -> None:
        self._device.modules.remove(module)

    def cuModuleGetFunction(self, module: int, name: bytes) -> int:
        assert module in self._device.modules
        number = self._device.number()
        self._device.functions[number] = name.decode()
        return number

    def cuLaunchKernel(self, function: int, *launch: Any) -> None:
        grid, block, (shared, stream, arguments, extra) = launch[:3], launch[3:6], launch[6:]
        assert (shared, extra) == (0, 0)
        name = self._device.functions[function]
        kernel = keep_candidates if name == "keep_candidates" else letterbox
        kinds = KEEP if kernel is keep_candidates else LETTERBOX
        values = read_arguments(arguments, kinds)

        def run() -> None:
            for value, kind in zip(values, kinds, strict=True):
                if kind is U64:
                    self._device.expect(value)
            kernel(values, grid, block, name == "letterbox_half")

        self._device.enqueue(stream, run)


U64, INT, FLOAT = ctypes.c_uint64, ctypes.c_int, ctypes.c_float
LETTERBOX = (U64, U64, INT, INT, FLOAT, INT, FLOAT * 3, FLOAT * 3)
KEEP = (U64, U64, U64, INT, INT, INT, U64, U64, U64)


def read_arguments(address: int, kinds: tuple[Any, ...]) -> list[Any]:
    """A launch copies its arguments when it is made."""
    places = (ctypes.c_void_p * len(kinds)).from_address(address)
    found = [kind.from_address(place) for kind, place in zip(kinds, places, strict=True)]
    return [value.value if hasattr(value, "value") else list(value) for value in found]


def at(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array over memory."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)


def letterbox(values: list[Any], grid: tuple[int, ...], block: tuple[int, ...], half: bool) -> None:
    pictures, out, width, height, fill, swap, scale, bias = values
    assert grid[0] * block[0] >= width
    assert grid[1] * block[1] >= height
    assert block[2] == 1
    target = at(out, (grid[2], 3, height, width), np.float16 if half else np.float32)
    for row, picture in enumerate(at(pictures, (grid[2],), PICTURE)):
        canvas = np.full((height, width, 3), fill, np.float32)
        if picture["pixels"]:
            (y, x), (rows, columns) = picture[["pad_y", "pad_x"]], picture[["fit_height", "fit_width"]]
            canvas[y : y + rows, x : x + columns] = fitted(picture, columns, rows)
        planes = canvas[..., ::-1] if swap else canvas
        target[row] = (planes * np.array(scale) + np.array(bias)).transpose(2, 0, 1)


PICTURE = np.dtype(
    [(name, np.uint64) for name in ("pixels", "u", "v")]
    + [(name, np.int32) for name in ("width", "height", "pitch", "depth", "chroma_pitch", "chroma_step")]
    + [(name, np.int32) for name in ("fit_width", "fit_height", "pad_x", "pad_y")]
    + [(name, np.float32) for name in ("black", "luma", "blue_u", "green_u", "green_v", "red_v", "threshold")],
    align=True,
)
"""As frames.cu has it."""
COLOURS = {
    tuple(np.array(astuple(coefficients(colour)), np.float32).tolist()): colour
    for colour in (Colour(matrix, full) for matrix in ("bt601", "bt709", "bt2020") for full in (False, True))
}


def fitted(picture: Any, columns: int, rows: int) -> Float32:
    """A picture at that size, as levels."""
    width, height = int(picture["width"]), int(picture["height"])
    if not picture["u"]:
        assert picture["pitch"] == width * 3
        frame = at(int(picture["pixels"]), (height, width, 3), np.uint8)
        return np.asarray(cv2.resize(frame, (columns, rows)), np.float32)
    half = (height + 1) // 2, (width + 1) // 2
    chroma = int(picture["chroma_pitch"]), int(picture["chroma_step"])
    planes = [
        strided(int(picture["pixels"]), (height, width), (int(picture["pitch"]), int(picture["depth"]))),
        *(strided(int(picture[name]), half, chroma, int(picture["depth"])) for name in ("u", "v")),
    ]
    numbers = tuple(float(picture[name]) for name in PICTURE.names or () if PICTURE[name] == np.float32)
    return bgr(planes, COLOURS[numbers[:-1]], rows, columns)


def strided(address: int, shape: tuple[int, int], strides: tuple[int, int], depth: int | None = None) -> Float32:
    """Samples with gaps between them, on the scale of 8 bits."""
    depth = depth or strides[1]
    flat = at(address, ((shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1] + depth,), np.uint8)
    places = np.arange(shape[0])[:, None] * strides[0] + np.arange(shape[1]) * strides[1]
    return np.asarray(flat[places] if depth == 1 else flat[places + 1] + flat[places] / 256, np.float32)


def keep_candidates(values: list[Any], grid: tuple[int, ...], block: tuple[int, ...], _: bool) -> None:
    """Places are given out in any order; here the last row comes first."""
    pictures, boxes, scores, rows, classes, limit, first, rest, counts = values
    assert grid[0] * block[0] >= rows * 32, "a warp for each row"
    for picture in range(grid[2]):
        threshold = at(pictures, (picture + 1,), PICTURE)[picture]["threshold"]
        own_boxes = at(boxes, (picture + 1, rows, 4), np.float32)[picture]
        own_scores = at(scores, (picture + 1, rows, classes), np.float32)[picture]
        count = at(counts, (picture + 1,), np.int32)
        for row in range(rows - 1, -1, -1):
            best = int(own_scores[row].argmax())
            if own_scores[row, best] < threshold:
                continue
            place = int(count[picture])
            assert 0 <= place < rows, "the counts did not start at 0"
            count[picture] += 1
            base = first + picture * limit * 32 if place < limit else rest + (picture * rows - limit) * 32
            at(base + place * 32, (1,), CANDIDATE)[0] = (own_boxes[row], own_scores[row, best], best, row, 0)


def install(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """From here on this process has a GPU: an Orin."""
    device = Simulation()
    for name in ("cuda.bindings.runtime", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, Runtime(device))
    monkeypatch.setattr(cuda, "_quick", lambda: None)
    monkeypatch.setattr(access, "served", lambda: (12, 6))
    return device


def toolkit_on(device: Simulation, version: str = "10.3.0") -> Toolkit:
    """A TensorRT that runs its engines on the simulated GPU."""
    found = fake_toolkit(version)
    found.trt.world.cuda = device
    return found


def echo_plan(kit: Toolkit, **changes: Any) -> bytes:
    """A plan of the network ECHO."""
    return make_plan(kit.version, json.dumps({**ECHO, **changes}).encode(), kit.trt.world.magic)


def echo_model(folder: Path, batch: int | str = "N", name: str = "images") -> Model:
    """The network ECHO as an ONNX file, with its card: what comes out shows which pictures went in, and how."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper  # noqa: PLC0415

    value = helper.make_tensor_value_info
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [0, 48, 4])
    nodes = [helper.make_node("Reshape", [name, "shape"], [out], name=out) for out in ("boxes", "scores")]
    outputs = [value(out, TensorProto.FLOAT, [batch, 48, 4]) for out in ("boxes", "scores")]
    graph = helper.make_graph(nodes, "g", [value(name, TensorProto.FLOAT, [batch, 3, 8, 8])], outputs, [shape])
    path = folder / "echo.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    decoder = DecoderCard(name="boxes_scores", options={"boxes": "boxes", "scores": "scores"})
    labels = ["a", "b", "c", "d"]
    card = ModelCard(name="echo", file="echo.onnx", input=INPUT, decoder=decoder, labels=labels, max_batch=4)
    return Model(card=card, path=path, sha256="0" * 64)
