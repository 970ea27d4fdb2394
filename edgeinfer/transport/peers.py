"""Who is connected to the publisher, and who has to go: too many, too much asked for, a flood, a key taken back.

ZeroMQ bounds none of it. Its monitor names each connection by its file descriptor, a subscription carries the one that
it came in on, and shutting that down ends the connection. A connection is a stranger until it has subscribed to
something: strangers have places of their own, so that they keep nobody out who is let in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from edgeinfer.guard.limits import (
    MAX_BOOK_BYTES,
    MAX_EARLY,
    MAX_PEER_BYTES,
    MAX_PEERS_OF_A_KEY,
    MAX_SUBSCRIPTIONS,
    MAX_TOPIC_BYTES,
    MAX_UNBOOKED_BYTES,
    SILENCE_S,
    SUBSCRIPTION_BURST,
)
from edgeinfer.guard.rate import RationedLog
from edgeinfer.transport import wire
from edgeinfer.transport.admission import Pace, Places
from edgeinfer.transport.subscription import Subscription

log = logging.getLogger(__name__)

SMALL_BYTES = MAX_BOOK_BYTES // 256
"""Whose subscriptions are no more is never the one to go when those of all are too many."""
CHANGES_PER_S = 100
EARLY_S = 1.0


@dataclass(slots=True, eq=False)
class Peer:
    """A connection. `owner` is the client's CURVE key, or the address that it comes from.

    `serial` tells it from another one on the same descriptor; 0 until it has subscribed to something. `known_bytes` is
    what it had sent when it was last looked at, and `booked_bytes` what has been booked of it since.
    """

    owner: str = ""
    key: str = ""
    serial: int = 0
    topics: set[bytes] = field(default_factory=set)
    topic_bytes: int = 0
    known_bytes: int = 0
    booked_bytes: int = 0
    since_s: float = 0.0
    changes: float = 0.0
    changed_s: float = 0.0


class Peers:
    """The book of the connections of one bound socket. Thread-safe: the door and the publisher write in it.

    `is_allowed` says whether a key may be here by the list as it is now, None without CURVE.
    """

    def __init__(self, places: Places, pace: Pace, is_allowed: Callable[[str], bool] | None = None) -> None:
        self._places, self._pace, self._is_allowed = places, pace, is_allowed
        self._lock = threading.RLock()
        self._said = RationedLog(log)
        self._peers: dict[int, Peer] = {}
        self._topics: Counter[bytes] = Counter()
        self._book_bytes = 0
        self._early: deque[tuple[float, Subscription]] = deque(maxlen=MAX_EARLY)
        self._endpoint = ""
        self.cut = 0

    @property
    def subscribers(self) -> int:
        """Connections with at least one subscription."""
        with self._lock:
            return sum(bool(peer.topics) for peer in self._peers.values())

    @property
    def count(self) -> int:
        """Connections, strangers included."""
        return len(self._peers)

    def close(self) -> None:
        """Says what there is left to say."""
        self._said.settle(final=True)

    def bound(self, endpoint: str) -> None:
        """Tells the endpoint that the socket is bound to; connections elsewhere are never touched."""
        self._endpoint = endpoint

    def arrived(self, descriptor: int) -> None:
        """A connection was accepted: a stranger."""
        with self._lock:
            self._forget(descriptor)
            self._peers[descriptor] = Peer(wire.remote_address(descriptor), since_s=time.monotonic())
            self._thin_out_strangers()

    def left(self, descriptor: int) -> None:
        """A connection has ended."""
        with self._lock:
            self._forget(descriptor)

    def change(self, subscription: Subscription) -> bytes | None:
        """Books a subscription or its end. Returns the prefix of a new subscription that may stay."""
        with self._lock:
            peer = self._peers.get(subscription.descriptor)
            if peer is None or (peer.serial and subscription.serial > peer.serial):
                self._early.append((time.monotonic(), subscription))  # the door has not told of this connection yet
                return None
            if peer.serial and subscription.serial < peer.serial:  # of a connection that had this descriptor before
                return None
            if not peer.serial and not self._admit(peer, subscription):
                return None
            return self._book(peer, subscription)

    @property
    def is_behind(self) -> bool:
        """Whether there is something to catch up with."""
        return bool(self._early)

    def catch_up(self) -> list[bytes]:
        """Books what came before its connection was told of. Returns as `change` does."""
        with self._lock:
            waiting = list(self._early)
            self._early.clear()
            found = []
            for since_s, subscription in waiting:
                if time.monotonic() - since_s > EARLY_S:  # where it is still there, nobody keeps its book
                    self._cut(subscription.descriptor, "nothing is known of its beginning")
                    continue
                count = len(self._early)
                prefix = self.change(subscription)
                if len(self._early) > count:
                    self._early[-1] = since_s, subscription
                elif prefix is not None:
                    found.append(prefix)
            return found

    def keep(self, allowed: Container[str]) -> None:
        """Cuts the connections whose key is not allowed any more."""
        with self._lock:
            for descriptor, peer in list(self._peers.items()):
                if peer.key and peer.key not in allowed:
                    self._cut(descriptor, "its key was revoked")

    def sweep(self) -> None:
        """Cuts those who have been strangers for too long. Call it now and then, while the publisher keeps up."""
        with self._lock:
            end_s = time.monotonic() - SILENCE_S
            for descriptor, peer in list(self._peers.items()):
                if not peer.serial and peer.since_s < end_s:
                    self._cut(descriptor, f"it has not subscribed to anything in {SILENCE_S} s")
                elif peer.serial:
                    self._look_at(descriptor, peer)
        self._said.settle()

    def stem(self) -> None:
        """Cuts those who send faster than they are booked, until what is left can be borne.

        The one thing that helps while ZeroMQ takes in subscriptions and does not come back. The kernel has counted.
        """
        with self._lock:
            unbooked = {
                descriptor: max(0, wire.received_bytes(descriptor) - peer.known_bytes - peer.booked_bytes)
                for descriptor, peer in self._peers.items()
            }
            total = sum(unbooked.values())
            for descriptor in sorted(unbooked, key=unbooked.__getitem__, reverse=True):
                if total <= MAX_UNBOOKED_BYTES:
                    return
                total -= unbooked[descriptor]
                self._cut(descriptor, "it floods the publisher with subscriptions", is_offence=True)

    def _look_at(self, descriptor: int, peer: Peer) -> None:
        """ZeroMQ keeps to itself what is neither a subscription nor a message: pings, commands that nobody knows."""
        received = wire.received_bytes(descriptor)
        if received - peer.known_bytes - peer.booked_bytes > 2 * MAX_UNBOOKED_BYTES:
            self._cut(descriptor, "it floods the publisher with commands", is_offence=True)
        peer.known_bytes, peer.booked_bytes = received, 0

    def _admit(self, peer: Peer, subscription: Subscription) -> bool:
        """A stranger's first subscription."""
        descriptor, key = subscription.descriptor, subscription.key
        if self._is_allowed is not None and not self._is_allowed(key):
            self._cut(descriptor, "its key was revoked")
            return False
        peer.serial, peer.key = subscription.serial, key
        peer.owner = key or peer.owner
        peer.changed_s, peer.changes = time.monotonic(), 0.0
        admitted = Counter(other.owner for other in self._peers.values() if other.serial)
        if key and admitted[key] > MAX_PEERS_OF_A_KEY:
            self._cut(descriptor, f"its key has more than {MAX_PEERS_OF_A_KEY} connections")
        elif sum(admitted.values()) > self._places.peers:
            crowd = max(admitted, key=lambda owner: (admitted[owner], owner == peer.owner))
            self._cut(self._newest_of(crowd), f"more than {self._places.peers} have subscribed")
        return self._peers.get(descriptor) is peer

    def _newest_of(self, owner: str) -> int:
        own = {number: peer for number, peer in self._peers.items() if peer.serial and peer.owner == owner}
        return max(own, key=lambda number: own[number].serial)

    def _book(self, peer: Peer, subscription: Subscription) -> bytes | None:
        descriptor, topic = subscription.descriptor, subscription.topic
        peer.booked_bytes += subscription.wire_bytes
        now = time.monotonic()
        peer.changes = max(0.0, peer.changes - (now - peer.changed_s) * CHANGES_PER_S) + 1
        peer.changed_s = now
        if subscription.is_none:
            self._cut(descriptor, "it sent what is no subscription", is_offence=True)
        elif peer.changes > SUBSCRIPTION_BURST:
            self._cut(descriptor, "it changes its subscriptions all the time", is_offence=True)
        elif not subscription.begins:
            self._drop(peer, topic)
        elif topic not in peer.topics:
            self._add(peer, topic)
            self._judge(descriptor, peer, len(topic))
        return topic if subscription.begins and self._peers.get(descriptor) is peer else None

    def _judge(self, descriptor: int, peer: Peer, size: int) -> None:
        if size > MAX_TOPIC_BYTES:
            self._cut(descriptor, f"a subscription has more than {MAX_TOPIC_BYTES} bytes", is_offence=True)
        elif len(peer.topics) > MAX_SUBSCRIPTIONS:
            self._cut(descriptor, f"it has more than {MAX_SUBSCRIPTIONS} subscriptions", is_offence=True)
        elif peer.topic_bytes > MAX_PEER_BYTES:
            self._cut(descriptor, f"its subscriptions are more than {MAX_PEER_BYTES >> 10} KiB", is_offence=True)
        while self._book_bytes > MAX_BOOK_BYTES:
            greediest = max(self._peers, key=lambda number: self._peers[number].topic_bytes)
            if self._peers[greediest].topic_bytes <= SMALL_BYTES:
                return
            why = f"the subscriptions of all are more than {MAX_BOOK_BYTES >> 10} KiB, and it has most"
            self._cut(greediest, why, is_offence=True)

    def _add(self, peer: Peer, topic: bytes) -> None:
        peer.topics.add(topic)
        peer.topic_bytes += len(topic)
        self._topics[topic] += 1
        if self._topics[topic] == 1:
            self._book_bytes += len(topic)

    def _drop(self, peer: Peer, topic: bytes) -> None:
        if topic not in peer.topics:
            return
        peer.topics.remove(topic)
        peer.topic_bytes -= len(topic)
        self._topics[topic] -= 1
        if not self._topics[topic]:
            del self._topics[topic]
            self._book_bytes -= len(topic)

    def _thin_out_strangers(self) -> None:
        """Some at once, as it takes a look at each: who has said nothing goes before who has, the oldest first."""
        strangers = [(number, peer) for number, peer in self._peers.items() if not peer.serial]
        if len(strangers) <= self._places.strangers:
            return
        crowd = Counter(peer.owner for _, peer in strangers).most_common(1)[0][0]
        own = [(number, peer) for number, peer in strangers if peer.owner == crowd]
        own.sort(key=lambda entry: (bool(wire.received_bytes(entry[0])), entry[1].since_s))
        for number, _ in own[: len(strangers) - self._places.strangers * 7 // 8]:
            self._cut(number, f"more than {self._places.strangers} have not subscribed to anything")

    def _forget(self, descriptor: int) -> None:
        peer = self._peers.pop(descriptor, None)
        if peer is not None:
            for topic in list(peer.topics):
                self._drop(peer, topic)

    def _cut(self, descriptor: int, why: str, is_offence: bool = False) -> None:
        peer = self._peers.get(descriptor)
        self._forget(descriptor)
        if not wire.cut(descriptor, self._endpoint):
            return
        self.cut += 1
        self._said.warning("disconnected subscribers", "publish: a subscriber was disconnected: %s", why)
        if is_offence and peer is not None:
            self._pace.slow_down(peer.owner)
