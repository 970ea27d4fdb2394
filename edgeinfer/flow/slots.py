"""Slots on loan from a backend: however a block is left, the slot is where it belongs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from edgeinfer.flow.network import Flight, Network
from edgeinfer.interfaces import Backend, Slot, TakesSurfaces
from edgeinfer.types import Frame, Letterbox, Picture


class Loan:
    """A slot to fill, for the length of a `with` block; it goes back at the end unless it has been submitted.

    `free` is false where all slots are in flight; there is nothing to fill then.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._slot: Slot | None = None

    def __enter__(self) -> Loan:
        self._slot = self._network.backend.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            self._network.backend.release(slot)

    @property
    def free(self) -> bool:
        """Whether there is a slot to fill."""
        return self._slot is not None

    def start(self, frames: Sequence[Frame]) -> Flight:
        """Loads frames and submits them; from then on the slot is the backend's. Raises what the backend raises."""
        assert self._slot is not None  # noqa: S101 (callers look at `free`, and start once)
        backend, started = self._network.backend, time.monotonic_ns()
        letterboxes = [
            as_seen(box, frame)
            for box, frame in zip(backend.load(self._slot, acceptable(backend, frames)), frames, strict=True)
        ]
        loaded = time.monotonic_ns()
        backend.submit(self._slot)
        self._slot = None
        return Flight(self._network, frames, letterboxes, started, loaded)


def acceptable(backend: object, frames: Sequence[Frame]) -> list[Picture]:
    """The frames' pictures in a form that the backend accepts."""
    versatile = backend if isinstance(backend, TakesSurfaces) else None
    return [_acceptable(versatile, frame) for frame in frames]


def _acceptable(backend: TakesSurfaces | None, frame: Frame) -> Picture:
    picture = frame.capture.picture
    if isinstance(picture, np.ndarray) or (backend is not None and backend.takes(picture)):
        return picture
    return frame.image


def as_seen(box: Letterbox, frame: Frame) -> Letterbox:
    """The letterbox in pixels of what the camera saw."""
    return box if frame.capture.seen is None else box.seen_as(*frame.capture.seen)


@contextmanager
def collected(backend: Backend, timeout_s: float) -> Iterator[Slot | None]:
    """The oldest batch in flight (see `Backend.collect`), given back at the end of the block."""
    slot = backend.collect(timeout_s)
    try:
        yield slot
    finally:
        if slot is not None:
            backend.release(slot)
