"""A model as it runs, and a batch that is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeinfer.errors import FatalError
from edgeinfer.interfaces import Backend, Decoder, Slot
from edgeinfer.messages import ModelInfo
from edgeinfer.types import Detections, Frame, Letterbox, Timing


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
    """A batch between submit and collect, with the network that it is in.

    `t_taken_ns` is when its preprocessing began and `t_loaded_ns` when that was done, monotonic.
    """

    network: Network
    frames: Sequence[Frame]
    letterboxes: Sequence[Letterbox]
    t_taken_ns: int
    t_loaded_ns: int


@dataclass(frozen=True, slots=True)
class Passage:
    """When a batch came out of the backend and when it was decoded, monotonic; how long the backend ran it, in ms."""

    t_collected_ns: int
    t_decoded_ns: int
    infer_ms: float


def timing_of(frame: Frame, flight: Flight, passage: Passage) -> Timing:
    """Where the time of one of the flight's frames went. The parts follow on each other, so that none is left out."""
    taken_ns, captured_ns = flight.t_taken_ns, frame.capture.t_mono_ns
    return Timing(
        queue=(taken_ns - captured_ns) / 1e6,
        preprocess=(flight.t_loaded_ns - taken_ns) / 1e6,
        infer=passage.infer_ms,
        decode=(passage.t_decoded_ns - passage.t_collected_ns) / 1e6,
        receive=(min(frame.t_received_mono_ns, taken_ns) - captured_ns) / 1e6,
        wait=max(0.0, (passage.t_collected_ns - flight.t_loaded_ns) / 1e6 - passage.infer_ms),
    )


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
