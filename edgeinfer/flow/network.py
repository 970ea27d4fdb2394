"""A model as it runs, and a batch that is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeinfer.errors import FatalError
from edgeinfer.interfaces import Backend, Decoder, Slot
from edgeinfer.messages import ModelInfo
from edgeinfer.types import Detections, Frame, Letterbox


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What turns pictures into detections, and can only be changed as a whole.

    Two networks may share a backend and differ in the decoder.
    """

    model: ModelInfo
    backend: Backend
    decoder: Decoder


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch between submit and collect, with the network that it is in. `queue_ms` has a wait for every frame."""

    network: Network
    frames: Sequence[Frame]
    letterboxes: Sequence[Letterbox]
    queue_ms: Sequence[float]
    preprocess_ms: float


def decoded(flight: Flight, decoder: Decoder, slot: Slot) -> list[Detections]:
    """What a decoder finds in a collected batch, one per frame.

    Raises what the decoder raises, and FatalError where it gives too few or too many.
    """
    found = decoder.decode(slot.candidates or slot.outputs, flight.letterboxes)
    if len(found) != len(flight.frames):
        raise FatalError(
            f"the decoder of {flight.network.model.id} gave {len(found)} results for {len(flight.frames)} frames"
        )
    return found
