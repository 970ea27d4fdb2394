"""A network is tried once before it is offered to the running daemon."""

from __future__ import annotations

import threading

import numpy as np

from edgeinfer.errors import FatalError, TemporaryError
from edgeinfer.flow.network import Network
from edgeinfer.interfaces import Backend, Slot

REHEARSAL_S, REHEARSAL_LOOKS = 30.0, 150


def rehearse(network: Network, cancel: threading.Event | None = None) -> None:
    """Sends one grey picture through a network that nobody uses yet. Raises whatever is wrong with it.

    Raises TemporaryError soon after `cancel` is set.
    """
    backend = network.backend
    slot = backend.acquire()
    assert slot is not None  # noqa: S101 (nothing is in flight)
    letterboxes = backend.load(slot, [np.full((360, 640, 3), 128, np.uint8)])
    backend.submit(slot)
    done = _collected(backend, cancel)
    network.decoder.decode(done.candidates or done.outputs, letterboxes)
    backend.release(done)


def _collected(backend: Backend, cancel: threading.Event | None) -> Slot:
    for _ in range(REHEARSAL_LOOKS):
        done = backend.collect(REHEARSAL_S / REHEARSAL_LOOKS)
        if done is not None:
            return done
        if cancel is not None and cancel.is_set():
            raise TemporaryError(f"{backend.name}: given up before it gave a result")
    raise FatalError(f"{backend.name}: no result within {REHEARSAL_S:.0f} s")
