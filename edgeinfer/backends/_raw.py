"""What an engine can do alone: its inputs lie on the device, its outputs stay there. For `edgeinfer bench`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from edgeinfer.backends._lane import ContextSlot
from edgeinfer.backends._tensorrt import TensorRt
from edgeinfer.errors import FatalError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.types import Image

STREAMS = (1, 2, 4, 8)
BATCHES = (1, 4, 16)
MOST_STREAMS = max(STREAMS)


def sweep(backend: TensorRt, images: Sequence[Image], seconds: float) -> dict[str, float]:
    """Frames per second by "STREAMSxBATCH", one thread launching CUDA graphs, `seconds` for each."""
    backend.prepare(None)
    lanes = [_filled(backend, images) for _ in range(backend.slots)]
    try:
        return _sweep(lanes, backend.batches, seconds)
    finally:
        for lane in lanes:
            backend.release(lane)


def _sweep(lanes: Sequence[ContextSlot], sizes: Sequence[int], seconds: float) -> dict[str, float]:
    cuda, rates = Cuda(), dict[str, float]()
    for batch in dict.fromkeys(max(sizes[0], min(batch, sizes[-1])) for batch in BATCHES):
        launches = [_Launch(cuda, lane, batch) for lane in lanes]
        for streams in dict.fromkeys(min(streams, len(lanes)) for streams in STREAMS):
            rates[f"{streams}x{batch}"] = _rate(launches[:streams], seconds) * batch
        for launch in launches:
            launch.close()
    return rates


def _filled(backend: TensorRt, images: Sequence[Image]) -> ContextSlot:
    """A lane whose input holds real pictures."""
    slot = backend.acquire()
    assert isinstance(slot, ContextSlot)  # noqa: S101 (as many are asked for as there are)
    backend.load(slot, [images[i % len(images)] for i in range(backend.max_batch)])
    slot.run(backend.max_batch)
    slot.finish()
    return slot


class _Launch:
    """The network alone, as a graph where it can be captured."""

    def __init__(self, cuda: Cuda, lane: ContextSlot, batch: int) -> None:
        self._cuda, self._lane = cuda, lane
        network, context = lane.network, lane.network.serving(batch)
        context.set_input_shape(network.input, (batch, *network.shape))
        self._enqueue = partial(context.execute_async_v3, lane.stream)
        self._enqueue()
        lane.finish()
        self._graph: Any | None = cuda.captured(lane.stream, self._enqueue) if network.capturable else None

    def __call__(self) -> None:
        if self._graph is not None:
            self._cuda("cudaGraphLaunch", self._graph, self._lane.stream)
        elif not self._enqueue():
            raise FatalError("TensorRT did not start a batch")

    def finish(self) -> None:
        """Waits for what was launched."""
        self._lane.finish()

    def close(self) -> None:
        """Frees the graph."""
        if self._graph is not None:
            self._cuda("cudaGraphExecDestroy", self._graph)


def _rate(launches: Sequence[_Launch], seconds: float) -> float:
    """Batches per second. Never more than a few wait in a stream, so that the clock stops soon after the last one."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(8):
            for launch in launches:
                launch()
        for launch in launches:
            launch.finish()
        count += 8 * len(launches)
    return count / (time.perf_counter() - started)
