"""Who is connected to the publisher, and who has to go: too many peers, too many subscriptions, a key taken back.

ZeroMQ bounds neither. Its socket monitor names each connection by its file descriptor, a subscription carries the one
that it came in on, and shutting that down ends the connection.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field

import zmq
from zmq.utils.monitor import parse_monitor_message

log = logging.getLogger(__name__)

MAX_PEERS = 256
MAX_SUBSCRIPTIONS = 1000
"""Of one peer, at a time. Each costs libzmq some 100 bytes for as long as the peer stays."""

_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


@dataclass(slots=True)
class Peer:
    """A connection. `key` is the client's public key, empty without CURVE."""

    topics: set[bytes] = field(default_factory=set)
    key: str = ""


class Peers:
    """Keeps the book of the connections of one bound socket. Used by the thread that owns the socket."""

    def __init__(self, owner: zmq.Socket[bytes]) -> None:
        self._owner = owner
        self._monitor: zmq.Socket[bytes] = owner.get_monitor_socket(_EVENTS)
        self._peers: dict[int, Peer] = {}
        self._own = ""
        self.cut = 0

    @property
    def subscribers(self) -> int:
        """Connections with at least one subscription."""
        return sum(bool(peer.topics) for peer in self._peers.values())

    def bound(self, endpoint: str) -> None:
        """Tells the endpoint that the socket is bound to; connections elsewhere are never touched."""
        self._own = endpoint

    def update(self) -> None:
        """Takes note of who has come and gone."""
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            descriptor = event["value"]
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._peers[descriptor] = Peer()
                if len(self._peers) > MAX_PEERS:
                    self._cut(descriptor, f"more than {MAX_PEERS} are connected")
            else:
                self._peers.pop(descriptor, None)

    def event(self, frame: zmq.Frame) -> bytes | None:
        """Books a subscription or its end. Returns the prefix of a new subscription."""
        data = frame.bytes
        descriptor = _descriptor(frame)
        if descriptor is None or data[:1] not in (b"\0", b"\1"):
            return None
        if descriptor not in self._peers:
            self.update()
        peer = self._peers.get(descriptor)
        if peer is None:  # it has gone, and this was still under way
            return None
        if data[:1] == b"\0":
            peer.topics.discard(data[1:])
            return None
        peer.topics.add(data[1:])
        peer.key = _user(frame)
        if len(peer.topics) > MAX_SUBSCRIPTIONS:
            self._cut(descriptor, f"it has more than {MAX_SUBSCRIPTIONS} subscriptions")
            return None
        return data[1:]

    def keep(self, allowed: Container[str]) -> None:
        """Cuts the connections whose key is not allowed any more."""
        for descriptor, peer in list(self._peers.items()):
            if peer.key and peer.key not in allowed:
                self._cut(descriptor, "its key was revoked")

    def close(self) -> None:
        """Ends the monitor. Call before the socket is closed."""
        self._owner.disable_monitor()
        self._monitor.close(linger=0)

    def _cut(self, descriptor: int, why: str) -> None:
        self._peers.pop(descriptor, None)
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            if self._is_ours(connection):
                self.cut += 1
                log.warning("publish: a subscriber was disconnected: %s", why)
                connection.shutdown(socket.SHUT_RDWR)

    def _is_ours(self, connection: socket.socket) -> bool:
        """Whether the descriptor is still a connection to our endpoint, and no file or socket that came after it."""
        name = connection.getsockname()
        if connection.family == socket.AF_UNIX:
            return self._own in (f"ipc://{name}", f"ipc://{os.fsdecode(name)}")
        return self._own.rpartition(":")[2] == str(name[1])


def _descriptor(frame: zmq.Frame) -> int | None:
    """None for the end of a subscription whose peer has gone."""
    read: Callable[[int], object] = frame.get
    try:
        value = read(zmq.SRCFD)
    except zmq.ZMQError:
        return None
    return value if isinstance(value, int) else None


def _user(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
