"""The network's outputs → the host: whole, or only the rows that a decoder will look at."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.kernel_code import CANDIDATE
from edgeinfer.gpu.kernel_launch import Kernels
from edgeinfer.gpu.memory import DeviceBuffer, Pair, PinnedBuffer
from edgeinfer.interfaces import Filter
from edgeinfer.types import AnyArray, Candidates, Outputs

KEPT = 256
"""So many candidates of a picture come back with the batch; more are fetched where there are more."""


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
        self._head = -(-4 * batch // CANDIDATE.itemsize)  # as many candidates' room is taken by the counts before them
        self._back = Pair(cuda, (self._head + batch * KEPT,), CANDIDATE)
        self._counts = self._back.host[: self._head].view(np.int32)
        self._kept = self._back.host[self._head :].reshape(batch, KEPT)
        self._places = np.arange(KEPT)
        self._rest = DeviceBuffer(cuda, batch * self._rows * CANDIDATE.itemsize)
        first = self._back.device + self._head * CANDIDATE.itemsize
        addresses = (pictures, boxes.device, scores.device, first, self._rest.address, self._back.device)
        self._kernel = kernels.keep_candidates((self._rows, classes, KEPT), *addresses)

    def record(self, rows: int, stream: int) -> None:
        """Filters `rows` pictures' outputs and copies what is kept."""
        self._cuda("cudaMemsetAsync", self._back.device, 0, rows * 4, stream)
        self._kernel(rows, stream)
        self._back.download(self._head + rows * KEPT, stream)

    def read(self, count: int) -> tuple[Outputs, Candidates | None]:
        """The candidates, in memory of their own."""
        counts = self._counts[:count].astype(np.intp)
        kept, owners = self._kept[:count][self._places < counts[:, None]], np.arange(count)
        owners = owners.repeat(np.minimum(counts, KEPT))
        for i in np.flatnonzero(counts > KEPT).tolist():
            more = self._more(i, int(counts[i]) - KEPT)
            kept, owners = np.concatenate([kept, more]), np.concatenate([owners, np.full(len(more), i)])
        order = (owners * self._rows + kept["row"]).argsort()
        boxes, scores, classes = (kept[name][order] for name in ("box", "score", "class_id"))
        return {}, Candidates(boxes, scores, classes, counts)

    def close(self) -> None:
        """Frees the buffers."""
        self._back.close()
        self._rest.close()
        self._cuda("cudaEventDestroy", self._event)

    def _more(self, picture: int, count: int) -> AnyArray:
        pinned = PinnedBuffer(self._cuda, count * CANDIDATE.itemsize)
        source = self._rest.address + picture * self._rows * CANDIDATE.itemsize
        self._cuda.download(pinned.address, source, pinned.bytes.nbytes, self._stream)
        self._cuda.finish(self._event, self._stream)
        more: AnyArray = pinned.bytes.view(CANDIDATE).copy()
        pinned.close()
        return more


def filter_fits(wanted: Filter | None, pairs: dict[str, Pair]) -> bool:
    """Whether the GPU can apply the filter to the network's outputs."""
    if wanted is None or wanted.boxes not in pairs or wanted.scores not in pairs:
        return False
    boxes, scores = pairs[wanted.boxes], pairs[wanted.scores]
    fits = len(boxes.shape) == len(scores.shape) == 3 and boxes.shape[:2] == scores.shape[:2] and boxes.shape[2] == 4
    return fits and boxes.dtype == scores.dtype == np.float32
