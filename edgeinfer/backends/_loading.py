"""Pictures → the network's input: preprocessed on the CPU and copied, or copied and preprocessed on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeinfer.config.card import InputCard
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.forms import Form, Forms
from edgeinfer.gpu.kernel_code import PICTURE_BYTES, PLACES
from edgeinfer.gpu.kernel_launch import Launch
from edgeinfer.gpu.memory import DeviceBuffer, Pair, PinnedBuffer
from edgeinfer.gpu.pins import Pins
from edgeinfer.pictures.host import HostSurface
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import Float32, Letterbox, Picture, Surface


class InputLoader(Protocol):
    """Brings pictures into the network's input: images, and surfaces that it `takes`.

    `record` may become part of a graph, `load` may not.
    """

    def takes(self, surface: Surface) -> bool: ...
    def load(self, pictures: Sequence[Picture], stream: int) -> Sequence[Letterbox]: ...
    def record(self, rows: int, stream: int) -> None: ...
    def close(self) -> None: ...


class HostLoader:
    """Preprocesses on the CPU and copies the input."""

    def __init__(self, card: InputCard, pair: Pair) -> None:
        self._preprocess = Preprocessor(card)
        self._pair, self._host = pair, pair.host
        self._direct = pair.dtype == np.float32
        self._input: Float32 = self._host if self._direct else np.zeros(pair.shape, np.float32)

    def takes(self, surface: Surface) -> bool:
        """Host memory: the CPU does it."""
        return not surface.on_device

    def load(self, pictures: Sequence[Any], stream: int) -> Sequence[Letterbox]:
        """See `Backend.load`."""
        boxes = [self._preprocess(picture, out) for picture, out in zip(pictures, self._input, strict=False)]
        if not self._direct:
            np.copyto(self._host[: len(boxes)], self._input[: len(boxes)], casting="same_kind")
        return boxes

    def record(self, rows: int, stream: int) -> None:
        """Copies `rows` pictures to the device."""
        self._pair.upload(rows, stream)

    def close(self) -> None:
        """Nothing of its own to free."""


class DeviceLoader:
    """Copies pictures once, or reads them where they lie (in device memory, or `mapped`), and preprocesses on the GPU.

    `device` is where the kernel finds the `Picture`s; `kernel` is set before the first batch.
    """

    def __init__(self, cuda: Cuda, card: InputCard, pins: Pins, rows: int, mapped: bool) -> None:
        self._cuda, self._pins, self._mapped = cuda, pins, mapped
        self._forms = Forms(card)
        self._pictures = Pair(cuda, (rows, PICTURE_BYTES), np.uint8)
        self._host = memoryview(self._pictures.host.reshape(-1))  # type: ignore[arg-type] # (NumPy's stubs)
        self._host[:] = bytes(len(self._host))  # pinned memory may hold what was there before, addresses among it
        self.device = self._pictures.device
        self._frames = [DeviceBuffer(cuda) for _ in range(rows)]
        self._staging = [PinnedBuffer(cuda) for _ in range(rows)]
        self.kernel: Launch | None = None

    def expect(self, score: float) -> None:
        """Sets the score threshold of the batches from now on."""
        self._forms.expect(score)

    def takes(self, surface: Surface) -> bool:
        """Whatever lies on the device, and of host memory what lies in one block."""
        return surface.on_device or isinstance(surface, HostSurface)

    def load(self, pictures: Sequence[Picture], stream: int) -> Sequence[Letterbox]:
        """See `Backend.load`. Starts the copies."""
        boxes, told = list[Letterbox](), list[bytes]()
        for row, picture in enumerate(pictures):
            form, places = self._placed(row, picture, stream)
            told += PLACES.pack(*places), form.packed
            boxes.append(form.box)
        self._host[:] = b"".join(told).ljust(len(self._host), b"\0")  # address 0: no picture
        return boxes

    def record(self, rows: int, stream: int) -> None:
        """Tells the GPU of the pictures and runs the kernel."""
        self._pictures.upload(rows, stream)
        if self.kernel is not None:
            self.kernel(rows, stream)

    def close(self) -> None:
        """Frees the buffers."""
        self._pictures.close()
        for frame, staging in zip(self._frames, self._staging, strict=True):
            frame.close()
            staging.close()

    def _placed(self, row: int, picture: Picture, stream: int) -> tuple[Form, tuple[int, int, int]]:
        """What the kernel is told of a picture, and where it will find it: pixels, u and v."""
        if isinstance(picture, np.ndarray):
            return self._forms.of_image(picture), (self._to_device(row, picture, stream), 0, 0)
        if isinstance(picture, HostSurface):
            form, address = self._forms.of_block(picture), self._to_device(row, picture.memory, stream)
            return form, (address, address + form.u, address + form.v)
        if picture.written:
            self._cuda.follow(stream, picture.written)
        planes = picture.planes
        return self._forms.of_planes(picture, planes), (planes.luma, planes.u, planes.v)

    def _to_device(self, row: int, memory: npt.NDArray[np.uint8], stream: int) -> int:
        size = memory.nbytes
        address = self._pins.address(memory)
        if not address:
            address = self._staging[row].reserve(size)
            np.copyto(self._staging[row].bytes[:size].reshape(memory.shape), memory)
        if self._mapped:
            return address
        target = self._frames[row].reserve(size)
        self._cuda.upload(target, address, size, stream)
        return target
