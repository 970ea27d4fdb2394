"""What a subscription that came in says: what of, by whom, over which connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import zmq

FRAME_BYTES = 2
CURVE_BYTES = 33
"""What a frame costs besides the topic: flags and length; and what CURVE puts around it."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """`begins` is false for its end. `serial` numbers the connections in the order of their handshakes.

    `is_none` says that it is none at all, but another message, which no subscriber sends.
    """

    descriptor: int
    serial: int
    key: str
    topic: bytes
    begins: bool
    is_none: bool = False

    @property
    def wire_bytes(self) -> int:
        """What it took at least to send it."""
        return 1 + len(self.topic) + FRAME_BYTES + (CURVE_BYTES if self.key else 0)


def user_id(serial: int, key: str) -> str:
    """What is remembered of a connection that is let in, for ZeroMQ to attach to each of its subscriptions."""
    return f"{serial} {key}"


def read(frame: zmq.Frame) -> Subscription | None:
    """None for the end of one whose connection has gone."""
    data = frame.bytes
    look: Callable[[int | str], object] = frame.get
    try:
        descriptor, user = look(zmq.SRCFD), str(look("User-Id"))
    except zmq.ZMQError:
        return None
    serial, _, key = user.partition(" ")
    if not isinstance(descriptor, int) or not serial.isdigit():
        return None
    is_none = data[:1] not in (b"\0", b"\1")
    return Subscription(descriptor, int(serial), key, data[1:], data[:1] == b"\1", is_none)
