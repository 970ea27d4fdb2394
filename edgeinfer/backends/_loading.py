"""Images → the network's input: preprocessed on the CPU and copied, or copied and preprocessed on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.kernel_code import PICTURE, packed
from edgeinfer.gpu.kernel_launch import Launch
from edgeinfer.gpu.memory import DeviceBuffer, Pair, PinnedBuffer
from edgeinfer.gpu.pins import Pins
from edgeinfer.preprocess.letterbox import Fitting, Preprocessor
from edgeinfer.types import Float32, Image, Letterbox


class InputLoader(Protocol):
    """Brings images into the network's input. `record` may become part of a graph, `load` may not."""

    def load(self, images: Sequence[Image], stream: int) -> Sequence[Letterbox]: ...
    def record(self, rows: int, stream: int) -> None: ...
    def close(self) -> None: ...


class HostLoader:
    """Preprocesses on the CPU and copies the input."""

    def __init__(self, card: InputCard, pair: Pair) -> None:
        self._preprocess = Preprocessor(card)
        self._pair, self._host = pair, pair.host
        self._direct = pair.dtype == np.float32
        self._input: Float32 = self._host if self._direct else np.zeros(pair.shape, np.float32)

    def load(self, images: Sequence[Image], stream: int) -> Sequence[Letterbox]:
        """See `Backend.load`."""
        boxes = [self._preprocess(image, out) for image, out in zip(images, self._input, strict=False)]
        if not self._direct:
            np.copyto(self._host[: len(images)], self._input[: len(images)], casting="same_kind")
        return boxes

    def record(self, rows: int, stream: int) -> None:
        """Copies `rows` pictures to the device."""
        self._pair.upload(rows, stream)

    def close(self) -> None:
        """Nothing of its own to free."""


class DeviceLoader:
    """Copies raw frames once, or reads them where they lie (`mapped`), and preprocesses on the GPU.

    `device` is where the kernel finds the `Picture`s; `kernel` is set before the first batch.
    """

    def __init__(self, cuda: Cuda, card: InputCard, pins: Pins, rows: int, mapped: bool) -> None:
        self._cuda, self._pins, self._mapped = cuda, pins, mapped
        self._fitting = Fitting(card)
        self._pictures = Pair(cuda, (rows, PICTURE.size), np.uint8)
        self._host = memoryview(self._pictures.host.reshape(-1))  # type: ignore[arg-type] # (NumPy's stubs)
        self._host[:] = bytes(len(self._host))  # pinned memory may hold what was there before, addresses among it
        self.device = self._pictures.device
        self._frames = [DeviceBuffer(cuda) for _ in range(rows)]
        self._staging = [PinnedBuffer(cuda) for _ in range(rows)]
        self.score = 0.0
        self.kernel: Launch | None = None

    def load(self, images: Sequence[Image], stream: int) -> Sequence[Letterbox]:
        """See `Backend.load`. Starts the copies."""
        boxes, pictures = [], []
        for row, image in enumerate(images):
            box, fit = self._fitting(image)
            address = self._to_device(row, image, stream)
            pictures.append(packed(address, box, fit, self.score))
            boxes.append(box)
        self._host[:] = b"".join(pictures).ljust(len(self._host), b"\0")  # address 0: no picture
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

    def _to_device(self, row: int, image: Image, stream: int) -> int:
        size = image.nbytes
        address = self._pins.address(image)
        if not address:
            address = self._staging[row].reserve(size)
            np.copyto(self._staging[row].bytes[:size].reshape(image.shape), image)
        if self._mapped:
            return address
        target = self._frames[row].reserve(size)
        self._cuda.upload(target, address, size, stream)
        return target
