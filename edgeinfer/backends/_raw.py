"""What an engine can do alone: its inputs lie on the device, its outputs stay there. For `edgeinfer bench`.

The method is trtexec's with `--useCudaGraph --noDataTransfers --infStreams=N`: after a warm-up one thread keeps every
stream busy, with one batch that runs and one behind it; throughput is batches × batch size over the time from the
first enqueue to the end of the last batch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgeinfer.backends._lane import ContextSlot
from edgeinfer.backends._tensorrt import TensorRt
from edgeinfer.errors import FatalError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.patience import PATIENCE
from edgeinfer.types import Image

STREAMS = (1, 2, 4, 8)
BATCHES = (1, 4, 16, 32)
MOST_STREAMS = max(STREAMS)
WARM_UP = 0.4
"""As a part of the time that is measured; trtexec's is 200 ms."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Frames per second by "STREAMSxBATCH"; batch → the optimization profile that ran it, in words."""

    rates: dict[str, float]
    profiles: dict[str, str]


def sweep(
    backend: TensorRt,
    images: Sequence[Image],
    seconds: float,
    streams: Sequence[int] = STREAMS,
    batches: Sequence[int] = BATCHES,
) -> Sweep:
    """Measures every number of streams with every batch that the engine takes, `seconds` for each."""
    backend.prepare(None)
    lanes = [_filled(backend, images) for _ in range(backend.slots)]
    least, most = backend.batches[0], backend.max_batch
    sizes = list(dict.fromkeys(max(least, min(batch, most)) for batch in batches))
    try:
        rates = _sweep(lanes, sizes, streams, seconds)
    finally:
        for lane in lanes:
            backend.release(lane)
    return Sweep(rates, {str(batch): backend.profile_of(batch) for batch in sizes})


def _sweep(
    lanes: Sequence[ContextSlot], sizes: Sequence[int], streams: Sequence[int], seconds: float
) -> dict[str, float]:
    cuda, rates = Cuda(), dict[str, float]()
    for batch in sizes:
        launches = [_Launch(cuda, lane, batch) for lane in lanes]
        for number in dict.fromkeys(min(number, len(lanes)) for number in streams):
            _rate(launches[:number], seconds * WARM_UP)
            rates[f"{number}x{batch}"] = _rate(launches[:number], seconds) * batch
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
    """The network alone, as a graph where it can be captured. At most two batches are in its stream."""

    def __init__(self, cuda: Cuda, lane: ContextSlot, batch: int) -> None:
        self._cuda, self._lane = cuda, lane
        network, context = lane.network, lane.network.serving(batch)
        network.set_rows(context, batch)
        self._enqueue = partial(context.execute_async_v3, lane.stream)
        self._enqueue()
        lane.finish()
        self._graph: Any | None = cuda.captured(lane.stream, self._enqueue) if network.capturable else None
        self._ends = [cuda.event(), cuda.event()]
        self._next_end = itertools.cycle(self._ends)

    def __call__(self) -> None:
        """Starts a batch, once the one before the last has come to its end."""
        end = next(self._next_end)
        if not self._cuda.wait(end, PATIENCE.deadline_s(), spin=True):
            raise FatalError("the GPU has not finished a batch in time", "see dmesg, then restart")
        if self._graph is not None:
            self._cuda("cudaGraphLaunch", self._graph, self._lane.stream)
        elif not self._enqueue():
            raise FatalError("TensorRT did not start a batch")
        self._cuda("cudaEventRecord", end, self._lane.stream)

    def finish(self) -> None:
        """Waits for what was launched."""
        self._lane.finish()

    def close(self) -> None:
        """Frees the graph and the events."""
        if self._graph is not None:
            self._cuda("cudaGraphExecDestroy", self._graph)
        for event in self._ends:
            self._cuda("cudaEventDestroy", event)


def _rate(launches: Sequence[_Launch], seconds: float) -> float:
    """Batches per second, from the first launch to the end of the last batch."""
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < seconds:
        for launch in launches:
            launch()
        count += len(launches)
    for launch in launches:
        launch.finish()
    return count / (time.perf_counter() - started)
