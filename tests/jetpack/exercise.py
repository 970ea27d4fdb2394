"""Calls CUDA as the product does and looks at what comes of it: python -m tests.jetpack.exercise NAME...

Runs on the stub libraries, and the same on a Jetson (with JetPack's libcudart) or another machine with a GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.cuda.library import DriverLibrary, RuntimeLibrary
from edgeinfer.gpu import kernel_code
from edgeinfer.gpu.forms import Forms
from edgeinfer.gpu.kernel_code import CANDIDATE
from edgeinfer.gpu.kernel_launch import Kernels
from edgeinfer.types import Colour
from tests.drawn import Drawn, Lying, network_input

UP, DOWN, MAPPED, THREAD_LOCAL = 1, 2, 2, 1
SIZE = 1 << 16


class Gpu:
    """The runtime, with a stream."""

    def __init__(self) -> None:
        self.cuda = RuntimeLibrary(os.environ.get("EDGEINFER_CUDART", "libcudart.so.12"))
        self.stream = self("cudaStreamCreateWithFlags", 1)

    def __call__(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self.cuda, name)(*arguments)
        assert status == 0, f"{name}: {status} {status.name}"
        return values[0] if values else None

    def status(self, name: str, *arguments: Any) -> int:
        """What the call says."""
        return int(getattr(self.cuda, name)(*arguments)[0])

    def pinned(self, size: int) -> tuple[int, Any]:
        """Pinned host memory, as address and bytes."""
        address = self("cudaHostAlloc", size, MAPPED)
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def device(self, data: bytes) -> int:
        """A copy on the device."""
        address = int(self("cudaMalloc", len(data)))
        self("cudaMemcpyAsync", address, data, len(data), UP, self.stream)
        return address

    def host(self, address: int, size: int) -> bytes:
        """A copy of what is on the device."""
        found = ctypes.create_string_buffer(size)
        self("cudaMemcpyAsync", found, address, size, DOWN, self.stream)
        self("cudaStreamSynchronize", self.stream)
        return found.raw


def copies(gpu: Gpu) -> None:
    """Pageable memory may be used again at once; what comes back is what was sent."""
    sent = bytearray(os.urandom(SIZE))
    kept = bytes(sent)
    address = gpu("cudaMalloc", SIZE)
    source = (ctypes.c_uint8 * SIZE).from_buffer(sent)
    gpu("cudaMemcpyAsync", address, source, SIZE, UP, gpu.stream)
    sent[:] = bytes(SIZE)
    assert gpu.host(address, SIZE) == kept
    gpu("cudaMemsetAsync", address, 7, SIZE, gpu.stream)
    assert gpu.host(address, SIZE) == b"\7" * SIZE
    gpu("cudaFree", address)
    assert gpu.status("cudaFree", address) == 1


def events(gpu: Gpu) -> None:
    """An event that was not recorded has happened; one that was comes when all before it is done."""
    event = gpu("cudaEventCreateWithFlags", 3)
    assert gpu.status("cudaEventQuery", event) == 0
    _, there = gpu.pinned(SIZE)
    there[:] = 1
    address, back = gpu.pinned(SIZE)
    on_device = gpu("cudaMalloc", SIZE)
    gpu("cudaMemcpyAsync", on_device, there.ctypes.data, SIZE, UP, gpu.stream)
    gpu("cudaMemcpyAsync", address, on_device, SIZE, DOWN, gpu.stream)
    gpu("cudaEventRecord", event, gpu.stream)
    while gpu.status("cudaEventQuery", event) == 600:
        pass
    assert (back == 1).all()


def graphs(gpu: Gpu) -> None:
    """A graph does again what was captured, with the memory's contents of then."""
    source, given = gpu.pinned(SIZE)
    target, found = gpu.pinned(SIZE)
    address = gpu("cudaMalloc", SIZE)
    given[:], found[:] = 1, 0
    gpu("cudaStreamBeginCapture", gpu.stream, THREAD_LOCAL)
    gpu("cudaMemcpyAsync", address, source, SIZE, UP, gpu.stream)
    gpu("cudaMemcpyAsync", target, address, SIZE, DOWN, gpu.stream)
    graph = gpu("cudaStreamEndCapture", gpu.stream)
    executable = gpu("cudaGraphInstantiate", graph, 0)
    gpu("cudaGraphDestroy", graph)
    gpu("cudaStreamSynchronize", gpu.stream)
    assert not found.any(), "a capture does nothing"
    for value in (3, 4):
        given[:] = value
        gpu("cudaGraphLaunch", executable, gpu.stream)
        gpu("cudaStreamSynchronize", gpu.stream)
        assert (found == value).all()
    gpu("cudaGraphExecDestroy", executable)


def broken_capture(gpu: Gpu) -> None:
    """Waiting in a capture ends it, and the stream can be used afterwards."""
    gpu("cudaStreamBeginCapture", gpu.stream, THREAD_LOCAL)
    assert gpu.status("cudaStreamSynchronize", gpu.stream) == 900
    assert gpu.status("cudaStreamEndCapture", gpu.stream) == 901
    gpu.cuda.cudaGetLastError()
    gpu("cudaStreamSynchronize", gpu.stream)


def mapped(gpu: Gpu) -> None:
    """Memory of the host can be registered once, and has an address for the device until it is given back."""
    memory = np.zeros(SIZE, np.uint8)
    gpu("cudaHostRegister", memory.ctypes.data, SIZE, MAPPED)
    assert gpu.status("cudaHostRegister", memory.ctypes.data, SIZE, MAPPED) == 712
    gpu.cuda.cudaGetLastError()
    address = gpu("cudaHostGetDevicePointer", memory.ctypes.data, 0)
    gpu("cudaMemsetAsync", address, 9, SIZE, gpu.stream)
    gpu("cudaStreamSynchronize", gpu.stream)
    assert (memory == 9).all()
    gpu("cudaHostUnregister", memory.ctypes.data)
    assert gpu.status("cudaHostUnregister", memory.ctypes.data) == 713


def threads(gpu: Gpu) -> None:
    """A thread has CUDA's context once it has called the runtime; the driver alone wants one first."""
    driver, seen = DriverLibrary(), list[int]()

    def other() -> None:
        code = kernel_code.code(*capability(gpu))
        seen.append(int(driver.cuModuleLoadData(code)[0]))
        gpu("cudaFree", gpu("cudaMalloc", 1))
        seen.append(int(driver.cuModuleLoadData(code)[0]))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [201, 0]


def candidates(gpu: Gpu) -> None:
    """The kernel that picks rows, against NumPy: the best class of each, ties for the first, NaN never."""
    rows, classes, limit = 70, 45, 20
    random = np.random.default_rng(1)
    scores = random.random((2, rows, classes), np.float32)
    scores[0, 3, 40], scores[0, 5] = np.nan, 0.75
    boxes = random.random((2, rows, 4), np.float32)
    picture = kernel_code.PLACES.pack(1, 0, 0) + kernel_code.FORM.pack(*[0] * 10, *[0.0] * 6, 0.97)
    arrays = [picture * 2, boxes.tobytes(), scores.tobytes(), bytes(2 * limit * 32), bytes(2 * rows * 32), bytes(8)]
    on_device = [gpu.device(array) for array in arrays]
    module = driver_call("cuModuleLoadData", kernel_code.code(*capability(gpu)))
    function = driver_call("cuModuleGetFunction", module, b"keep_candidates")
    lengths = [ctypes.c_int(number) for number in (rows, classes, limit)]
    addresses = [ctypes.c_uint64(address) for address in on_device]
    values = [*addresses[:3], *lengths, *addresses[3:]]
    places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    driver_call("cuLaunchKernel", function, -(-rows // 8), 1, 2, 256, 1, 1, 0, gpu.stream, places, None)
    counts = np.frombuffer(gpu.host(on_device[5], 8), np.int32)
    first = np.frombuffer(gpu.host(on_device[3], 2 * limit * 32), CANDIDATE).reshape(2, limit)
    rest = np.frombuffer(gpu.host(on_device[4], 2 * rows * 32), CANDIDATE).reshape(2, rows)
    for index in range(2):
        best = np.nan_to_num(scores[index], nan=-1).max(1)
        wanted = np.flatnonzero((best >= np.float32(0.97)) & ~np.isnan(scores[index]).any(1))
        assert counts[index] == len(wanted) > limit, "more than fit, so that the rest is used"
        found = np.concatenate([first[index], rest[index, : counts[index] - limit]])
        found = found[np.argsort(found["row"])]
        assert (found["row"] == wanted).all()
        assert (found["class_id"] == scores[index, wanted].argmax(1)).all()
        assert (found["box"] == boxes[index, wanted]).all()


def surfaces(gpu: Gpu) -> None:
    """The letterbox kernel on YUV pictures in device memory, against NumPy."""
    kernels = Kernels(kernel_code.code(*capability(gpu)) or b"")
    card = InputCard(name="x", width=16, height=12, color="rgb", mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0])
    for drawn in (Drawn(33, 21, gap=6, depth=2), Drawn(20, 34, interleaved=False, colour=Colour("bt709", True))):
        memory, address = drawn.memory(), gpu.device(drawn.memory().tobytes())
        surface, planes = Lying(drawn, address, memory), drawn.planes(address)
        packed = Forms(card).of_planes(surface, planes).packed
        picture = gpu.device(kernel_code.PLACES.pack(planes.luma, planes.u, planes.v) + packed)
        wanted = network_input(drawn.levels(memory), drawn.colour, card)
        for dtype in (np.float32, np.float16):
            out = gpu("cudaMalloc", wanted.size * np.dtype(dtype).itemsize)
            kernels.letterbox(card, dtype == np.float16, picture, out)(1, gpu.stream)
            found = np.frombuffer(gpu.host(out, wanted.size * np.dtype(dtype).itemsize), dtype)
            assert np.abs(found.reshape(wanted.shape) - wanted).max() < 0.1


def illegal(gpu: Gpu) -> None:
    """An address that is nobody's ends the context, also for other calls. The last thing that a process does."""
    address = gpu("cudaMalloc", SIZE)
    gpu("cudaFree", address)
    gpu("cudaMemsetAsync", 0xDEAD0000, 1, 1 << 30, gpu.stream)
    assert gpu.status("cudaStreamSynchronize", gpu.stream) in (1, 700)
    assert gpu.status("cudaMalloc", 1) in (1, 700)


def capability(gpu: Gpu) -> tuple[int, int]:
    """Of the device."""
    return gpu("cudaDeviceGetAttribute", 75, 0), gpu("cudaDeviceGetAttribute", 76, 0)


def driver_call(name: str, *arguments: Any) -> Any:
    """What a function of the driver gives."""
    status, *values = getattr(DriverLibrary(), name)(*arguments)
    assert status == 0, f"{name}: {status}"
    return values[0] if values else None


CHECKS: tuple[Callable[[Gpu], None], ...] = (
    copies,
    events,
    graphs,
    broken_capture,
    mapped,
    threads,
    candidates,
    surfaces,
    illegal,
)


def main(names: list[str]) -> None:
    """Does the checks of these names, or all."""
    gpu = Gpu()
    for check in CHECKS:
        if not names or check.__name__ in names:
            check(gpu)
            print(check.__name__, "ok")


if __name__ == "__main__":
    main(sys.argv[1:])
