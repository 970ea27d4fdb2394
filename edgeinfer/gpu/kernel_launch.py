"""The compiled kernels, loaded for the GPU at hand, and their launches."""

from __future__ import annotations

import ctypes
import logging
from typing import Any

from edgeinfer.config.card import InputCard
from edgeinfer.errors import EdgeinferError
from edgeinfer.gpu import kernel_code as kernels
from edgeinfer.gpu.cuda import Cuda, Driver

log = logging.getLogger(__name__)

THREADS = 256
TILE = (32, 8)
Float3 = ctypes.c_float * 3


class Launch:
    """A kernel with its grid, block and arguments (ctypes values). The last grid dimension is the batch's rows."""

    def __init__(
        self, driver: Driver, function: Any, grid: tuple[int, int], block: tuple[int, int], *values: Any
    ) -> None:
        self._driver, self._function, self._grid, self._block = driver, function, grid, block
        self._values = values
        self._pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))

    def __call__(self, rows: int, stream: int) -> None:
        """Starts it on the stream. Raises FatalError."""
        arguments = ctypes.addressof(self._pointers)
        self._driver("cuLaunchKernel", self._function, *self._grid, rows, *self._block, 1, 0, stream, arguments, 0)


class Kernels:
    """Those of `frames.cu`."""

    def __init__(self, code: bytes) -> None:
        self._driver = Driver()
        self._module = self._driver("cuModuleLoadData", code)

    def letterbox(self, card: InputCard, half: bool, pictures: int, out: int) -> Launch:
        """From `Picture`s at a device address to the network's input at another."""
        known = kernels.constants(card)
        grid = -(-card.width // TILE[0]), -(-card.height // TILE[1])
        return Launch(
            self._driver,
            self._function("letterbox_half" if half else "letterbox_float"),
            grid,
            TILE,
            *(ctypes.c_uint64(address) for address in (pictures, out)),
            *(ctypes.c_int(length) for length in (card.width, card.height)),
            ctypes.c_float(known.fill),
            ctypes.c_int(known.swap),
            Float3(*known.scale),
            Float3(*known.bias),
        )

    def keep_candidates(self, shape: tuple[int, int, int], *addresses: int) -> Launch:
        """`shape` is rows, classes, limit; addresses of pictures, boxes, scores, first, rest and counts."""
        pictures, boxes, scores, first, rest, counts = (ctypes.c_uint64(address) for address in addresses)
        rows, classes, limit = (ctypes.c_int(length) for length in shape)
        grid = -(-shape[0] // (THREADS // 32)), 1
        function = self._function("keep_candidates")
        values = (pictures, boxes, scores, rows, classes, limit, first, rest, counts)
        return Launch(self._driver, function, grid, (THREADS, 1), *values)

    def close(self) -> None:
        """Unloads the code. Nothing may be running."""
        self._driver("cuModuleUnload", self._module)

    def _function(self, name: str) -> Any:
        return self._driver("cuModuleGetFunction", self._module, name.encode())


def load_kernels(cuda: Cuda) -> Kernels | None:
    """The kernels for device 0; None, and why in the log, where frames must be preprocessed on the CPU."""
    cuda.attempt("cudaFree", 0)  # makes this thread's context, which the driver's own calls need
    version = cuda.attribute("ComputeCapabilityMajor"), cuda.attribute("ComputeCapabilityMinor")
    code = kernels.code(*version)
    if code is None:
        log.warning("no kernels for compute capability %d.%d: frames are preprocessed on the CPU", *version)
        return None
    try:
        return Kernels(code)
    except EdgeinferError as error:
        log.warning("%s: frames are preprocessed on the CPU", error.message)
        return None
