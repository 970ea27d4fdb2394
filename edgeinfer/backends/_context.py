"""One batch's way through the GPU: load, network, outputs, on one stream, as a CUDA graph where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.errors import FatalError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.kernel_code import CANDIDATE, PICTURE, packed
from edgeinfer.gpu.kernel_launch import Kernels, Launch
from edgeinfer.gpu.memory import DeviceBuffer, Pair, PinnedBuffer
from edgeinfer.gpu.pins import Pins
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.preprocess.letterbox import Fitting, Preprocessor
from edgeinfer.types import AnyArray, Candidates, Float32, Image, Letterbox, Outputs

KEPT = 256
"""So many candidates of a picture come back with the batch; more are fetched where there are more."""


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
        self.threshold = 0.0
        self.kernel: Launch | None = None

    def load(self, images: Sequence[Image], stream: int) -> Sequence[Letterbox]:
        """See `Backend.load`. Starts the copies."""
        boxes, pictures = [], []
        for row, image in enumerate(images):
            box, fit = self._fitting(image)
            address = self._to_device(row, image, stream)
            pictures.append(packed(address, box, fit, self.threshold))
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


class OutputReader(Protocol):
    """Brings back what the network made. `record` may become part of a graph."""

    def record(self, rows: int, stream: int) -> None: ...
    def read(self, count: int) -> tuple[Outputs, Candidates | None]: ...
    def close(self) -> None: ...


class WholeReader:
    """Copies every output."""

    def __init__(self, pairs: dict[str, Pair]) -> None:
        self._pairs = pairs

    def record(self, rows: int, stream: int) -> None:
        """Copies `rows` pictures' outputs to the host."""
        for pair in self._pairs.values():
            pair.download(rows, stream)

    def read(self, count: int) -> tuple[Outputs, Candidates | None]:
        """The outputs, in pinned memory that is used again."""
        return {name: pair.host[:count] for name, pair in self._pairs.items()}, None

    def close(self) -> None:
        """Nothing of its own to free."""


class FilteringReader:
    """Applies the score threshold on the GPU and copies only what reached it."""

    def __init__(self, cuda: Cuda, kernels: Kernels, pictures: int, boxes: Pair, scores: Pair, stream: int) -> None:
        batch, self._rows, classes = scores.shape
        self._cuda, self._stream, self._event = cuda, stream, cuda.event()
        self._first = Pair(cuda, (batch, KEPT), CANDIDATE)
        self._counts = Pair(cuda, (batch,), np.int32)
        self._kept, self._numbers = self._first.host, self._counts.host
        self._rest = DeviceBuffer(cuda, batch * self._rows * CANDIDATE.itemsize)
        addresses = (pictures, boxes.device, scores.device, self._first.device, self._rest.address)
        self._kernel = kernels.keep_candidates((self._rows, classes, KEPT), *addresses, self._counts.device)

    def record(self, rows: int, stream: int) -> None:
        """Filters `rows` pictures' outputs and copies what is kept."""
        self._cuda("cudaMemsetAsync", self._counts.device, 0, rows * 4, stream)
        self._kernel(rows, stream)
        self._counts.download(rows, stream)
        self._first.download(rows, stream)

    def read(self, count: int) -> tuple[Outputs, Candidates | None]:
        """The candidates, in memory of their own."""
        counts = self._numbers[:count].astype(np.intp)
        parts = [self._kept[i, : min(n, KEPT)] for i, n in enumerate(counts.tolist())]
        for i in np.flatnonzero(counts > KEPT).tolist():
            parts[i] = np.concatenate([parts[i], self._more(i, int(counts[i]) - KEPT)])
        kept = np.concatenate([part[np.argsort(part["row"])] for part in parts])
        boxes, scores, classes = (np.ascontiguousarray(kept[name]) for name in ("box", "score", "class_id"))
        return {}, Candidates(boxes, scores, classes, counts)

    def close(self) -> None:
        """Frees the buffers."""
        for buffer in (self._first, self._counts, self._rest):
            buffer.close()
        self._cuda("cudaEventDestroy", self._event)

    def _more(self, picture: int, count: int) -> AnyArray:
        pinned = PinnedBuffer(self._cuda, count * CANDIDATE.itemsize)
        source = self._rest.address + picture * self._rows * CANDIDATE.itemsize
        self._cuda.download(pinned.address, source, pinned.bytes.nbytes, self._stream)
        self._cuda.finish(self._event, self._stream)
        more: AnyArray = pinned.bytes.view(CANDIDATE).copy()
        pinned.close()
        return more


class NotStartedError(FatalError):
    """TensorRT refused a batch; its log says why."""


@dataclass(frozen=True, slots=True)
class BoundContext:
    """An execution context with the buffers that it is bound to. `shape` is the input's, without the batch."""

    context: Any
    input: str
    shape: tuple[int, ...]
    pairs: dict[str, Pair]

    @property
    def outputs(self) -> dict[str, Pair]:
        """The buffers of the outputs."""
        return {name: pair for name, pair in self.pairs.items() if name != self.input}


class ContextSlot(Slot):
    """A slot with its own execution context, stream and buffers. `submitted_s` is monotonic."""

    def __init__(self, cuda: Cuda, network: BoundContext, loader: InputLoader) -> None:
        super().__init__()
        self._cuda, self.network, self.loader = cuda, network, loader
        self.reader: OutputReader = WholeReader(network.outputs)
        self.stream, self._event = cuda.stream(), cuda.event()
        self._graphs: dict[int, Any] = {}
        self._rows: int | None = None
        self.submitted_s = 0.0

    def run(self, rows: int) -> None:
        """Starts a batch of `rows`, as a graph where there is one. Raises FatalError."""
        graph = self._graphs.get(rows)
        if graph is not None:
            self._cuda("cudaGraphLaunch", graph, self.stream)
        else:
            self.record(rows)
        self._cuda("cudaEventRecord", self._event, self.stream)

    def record(self, rows: int) -> None:
        """Puts the whole way of a batch into the stream."""
        network = self.network
        if self._rows != rows:
            network.context.set_input_shape(network.input, (rows, *network.shape))
            self._rows = rows
        self.loader.record(rows, self.stream)
        if not network.context.execute_async_v3(self.stream):
            raise NotStartedError(f"TensorRT did not start a batch of {rows}")
        self.reader.record(rows, self.stream)

    def capture(self, rows: int) -> bool:
        """Makes the graph for batches of `rows`, after a run that does the lazy work. Whether it could."""
        self.run(rows)
        self.finish()
        graph = self._cuda.captured(self.stream, lambda: self.record(rows))
        if graph is not None:
            self._graphs[rows] = graph
        return graph is not None

    def wait(self, timeout_s: float, spin: bool = False) -> bool:
        """Whether the batch has come to its end in time."""
        return self._cuda.wait(self._event, timeout_s, spin)

    def finish(self) -> None:
        """Waits for everything in the stream. Raises FatalError where it doesn't end."""
        self._cuda.finish(self._event, self.stream)

    def forget_graphs(self) -> None:
        """Frees the graphs; their buffers or kernels are about to change."""
        for graph in self._graphs.values():
            self._cuda("cudaGraphExecDestroy", graph)
        self._graphs.clear()

    def close(self) -> None:
        """Frees everything. Nothing may be in flight."""
        self.forget_graphs()
        self.loader.close()
        self.reader.close()
        for pair in self.network.pairs.values():
            pair.close()
        self._cuda("cudaEventDestroy", self._event)
        self._cuda("cudaStreamDestroy", self.stream)


def filter_fits(wanted: Filter | None, pairs: dict[str, Pair]) -> bool:
    """Whether the GPU can apply the filter to the network's outputs."""
    if wanted is None or wanted.boxes not in pairs or wanted.scores not in pairs:
        return False
    boxes, scores = pairs[wanted.boxes], pairs[wanted.scores]
    fits = len(boxes.shape) == len(scores.shape) == 3 and boxes.shape[:2] == scores.shape[:2] and boxes.shape[2] == 4
    return fits and boxes.dtype == scores.dtype == np.float32
