"""One batch's way through the GPU: load, network, outputs, on one stream, as a CUDA graph where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeinfer.backends._loading import DeviceLoader, HostLoader, InputLoader
from edgeinfer.backends._reading import FilteringReader, OutputReader, WholeReader, filter_fits
from edgeinfer.config.card import InputCard
from edgeinfer.errors import FatalError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.kernel_launch import load_kernels
from edgeinfer.gpu.memory import Pair
from edgeinfer.gpu.pins import Pins
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.types import Picture


class NotStartedError(FatalError):
    """TensorRT refused a batch; its log says why."""


@dataclass(frozen=True, slots=True)
class BoundContext:
    """An execution context with the buffers that it is bound to. `shape` is the input's, without the batch.

    `capturable`: whether a CUDA graph can hold it. `single`: a context on the profile for single pictures, bound to the
    same buffers. Contexts are never moved to another profile: that would be beneath the graphs that hold them.
    """

    context: Any
    input: str
    shape: tuple[int, ...]
    pairs: dict[str, Pair]
    capturable: bool = True
    single: Any | None = None

    def serving(self, rows: int) -> Any:
        """The context that runs batches of `rows`."""
        return self.single if rows == 1 and self.single is not None else self.context

    def set_rows(self, context: Any, rows: int) -> None:
        """Readies the context for batches of `rows`. Raises NotStartedError."""
        if not context.set_input_shape(self.input, (rows, *self.shape)):
            raise NotStartedError(f"TensorRT did not take a batch of {rows}")

    @property
    def outputs(self) -> dict[str, Pair]:
        """The buffers of the outputs."""
        return {name: pair for name, pair in self.pairs.items() if name != self.input}


class ContextSlot(Slot):
    """A slot with its own execution context, stream and buffers. `submitted_s` is monotonic.

    `pictures`: what was loaded, kept from being used again while the GPU may read it.
    """

    def __init__(self, cuda: Cuda, network: BoundContext, loader: InputLoader) -> None:
        super().__init__()
        self._cuda, self.network, self.loader = cuda, network, loader
        self.reader: OutputReader = WholeReader(network.outputs)
        self.stream, self._event = cuda.stream(), cuda.event()
        self._graphs: dict[int, Any] = {}
        self._rows: int | None = None
        self.submitted_s = 0.0
        self.pictures: Sequence[Picture] = ()

    def run(self, rows: int) -> None:
        """Starts a batch of `rows`, as a graph where there is one. Raises FatalError."""
        graph = self._graphs.get(rows)
        if graph is not None:
            self._cuda("cudaGraphLaunch", graph, self.stream)
        else:
            self.record(rows)
        self._cuda.record(self._event, self.stream)

    def record(self, rows: int) -> None:
        """Puts the whole way of a batch into the stream."""
        network, context = self.network, self.network.serving(rows)
        if self._rows != rows:
            network.set_rows(context, rows)
            self._rows = rows
        self.loader.record(rows, self.stream)
        if not context.execute_async_v3(self.stream):
            raise NotStartedError(f"TensorRT did not start a batch of {rows}")
        self.reader.record(rows, self.stream)

    def capture(self, rows: int) -> bool:
        """Makes the graph for batches of `rows`, after a run that does the lazy work. Whether it could."""
        if not self.network.capturable:
            return False
        self.run(rows)
        self.finish()
        graph = self._cuda.captured(self.stream, lambda: self.record(rows))
        if graph is not None:
            self._graphs[rows] = graph
        return graph is not None

    def wait(self, timeout_s: float, spin: bool = False) -> bool:
        """Whether the batch has come to its end in time."""
        return self._cuda.wait(self._event, timeout_s, spin, self.submitted_s)

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


class LaneMaker:
    """Makes lanes, and fits them with what this GPU can do by itself. `kernels` is None where the CPU preprocesses."""

    def __init__(self, cuda: Cuda, card: InputCard, gpu_preprocess: bool) -> None:
        self._cuda, self._card = cuda, card
        self._mapped = bool(cuda.attribute("Integrated"))
        self._pins = Pins(cuda, self._mapped)
        self.kernels = load_kernels(cuda) if gpu_preprocess else None

    def lane(self, network: BoundContext) -> ContextSlot:
        """A lane around the context, which reads every output."""
        return ContextSlot(self._cuda, network, self._loader(network.pairs[network.input]))

    def choose(self, lane: ContextSlot, wanted: Filter | None) -> bool:
        """Gives the lane what reads its outputs. Returns whether it is the GPU that chooses candidates."""
        lane.forget_graphs()
        lane.reader.close()
        outputs, loader = lane.network.outputs, lane.loader
        if wanted is None or not isinstance(loader, DeviceLoader) or not filter_fits(wanted, outputs):
            lane.reader = WholeReader(outputs)
            return False
        assert self.kernels is not None  # noqa: S101 (a device loader has them)
        boxes, scores = outputs[wanted.boxes], outputs[wanted.scores]
        lane.reader = FilteringReader(self._cuda, self.kernels, loader.device, boxes, scores, lane.stream)
        return True

    def close(self) -> None:
        """Unloads the kernels. No lane may be left."""
        if self.kernels is not None:
            self.kernels.close()

    def _loader(self, pair: Pair) -> InputLoader:
        """The GPU's kernel where there is one for the input's type, else the CPU."""
        if self.kernels is None or pair.dtype not in (np.float32, np.float16):
            return HostLoader(self._card, pair)
        loader = DeviceLoader(self._cuda, self._card, self._pins, pair.shape[0], self._mapped)
        loader.kernel = self.kernels.letterbox(self._card, pair.dtype == np.float16, loader.device, pair.device)
        return loader
