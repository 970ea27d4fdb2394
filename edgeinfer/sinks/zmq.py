"""The ZeroMQ publisher. Never blocks: a slow subscriber loses messages, and only its own."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path
from typing import Annotated

import zmq
from msgspec import Meta, Struct

from edgeinfer.errors import ConfigError, EdgeinferError, FatalError, TemporaryError
from edgeinfer.guard.limits import (
    EVENTS_AT_ONCE,
    HANDSHAKE_MS,
    INBOUND,
    MAX_ZMTP_FRAME_BYTES,
    RECEIVE_BUFFER_BYTES,
    REPLAYS,
    UNREAD_MS,
)
from edgeinfer.guard.scarcity import SCARCE
from edgeinfer.messages import Encoding, Message, encode, kind_of, topic
from edgeinfer.transport import keys
from edgeinfer.transport.allowlist import AllowList
from edgeinfer.transport.door import Door
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT, check_endpoint, reaches_out
from edgeinfer.transport.ipc import lock_ipc
from edgeinfer.transport.subscription import read
from edgeinfer.types import Result

log = logging.getLogger(__name__)

LATCHED = ("info", "status")
_LAST, _MORE = (
    int(zmq.NOBLOCK),
    int(zmq.NOBLOCK) | int(zmq.SNDMORE),
)  # as plain numbers: an enum's `|` costs microseconds
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)
REPLAY_S = 1.0
"""After `REPLAYS` of them at once, latched messages are sent again at most so often: they go to everybody."""
MAX_WANTED = 64
"""Prefixes that are asked for at a time; of more all is sent again."""
AT_ONCE_S = 0.002
"""So long subscriptions are looked at between two messages."""


class Curve(Struct, frozen=True, kw_only=True):
    """`secret_key` is the daemon's .key file, `allow` the list of the clients' public keys, which may change."""

    secret_key: Annotated[str, Meta(min_length=1)]
    allow: Annotated[str, Meta(min_length=1)]


class Options(Struct, frozen=True, kw_only=True):
    """`high_water_mark` bounds the messages kept for one slow subscriber. `curve` has `secret_key`, the daemon's .key
    file, and `allow`, the list of the clients that are let in; it is read again when it changes. `insecure: true`
    allows a bind that other machines can reach without keys: anybody there can then read the detections."""

    bind: str = DEFAULT_ENDPOINT
    format: Encoding = "json"
    high_water_mark: Annotated[int, Meta(ge=1, le=100_000)] = 64
    curve: Curve | None = None
    insecure: bool = False


def open(options: Options) -> ZmqPublisher:  # noqa: A001 (the plugin interface)
    """Binds at once, so that subscribers can connect before the model is loaded.

    Raises ConfigError for an endpoint that can't work and TemporaryError for one that is taken.
    """
    return ZmqPublisher(options)


class ZmqPublisher:
    """See `Sink`. Never waits for a subscriber. The socket may change threads once made, but only one may use it."""

    blocks = False
    pictures = False

    def __init__(self, options: Options) -> None:
        check(options)
        if reaches_out(options.bind) and options.curve is None:
            log.warning("publish: %s: whoever can reach it reads the detections (insecure: true)", options.bind)
        self._encoding: Encoding = options.format
        self._latched: dict[bytes, bytes] = {}
        self._wanted: set[bytes] = set()
        self._replays, self._replayed_s = float(REPLAYS), time.monotonic()
        pair = None if options.curve is None else keys.read_pair(Path(options.curve.secret_key))
        allowed = None if options.curve is None else AllowList(Path(options.curve.allow))
        self._lock = lock_ipc(options.bind)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        _configure(self._socket, options, pair)
        self._door = Door(self._context, self._socket, allowed)
        self._peers = self._door.peers
        try:
            _bind(self._socket, options.bind)
        except EdgeinferError:
            self.close()
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._peers.bound(self.endpoint)

    @property
    def subscribers(self) -> int:
        """Who is connected and has subscribed to something. From any thread."""
        return self._peers.subscribers

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        kind = kind_of(message)
        frames = [topic(kind, message.source), encode(message, self._encoding)]
        if kind in LATCHED:
            self._latched[frames[0]] = frames[1]
        self._listen()
        self._send(frames)

    def service(self) -> None:
        """Sends latched messages to whoever has just subscribed to them.

        Raises FatalError where the thread that lets subscribers in has ended.
        """
        if self._door.error is not None:
            raise FatalError(f"publish: nobody can be let in any more: {self._door.error}")
        self._listen()
        self._replay()

    def _listen(self) -> None:
        """Takes note of subscriptions, before a message goes to somebody who may not have it; never for long."""
        self._door.inside_s = start_s = time.monotonic()
        if int(self._socket.getsockopt(_EVENTS)) & _READABLE or self._peers.is_behind:
            self._door.stirred_s = start_s
            self._take_note(start_s - self._door.waited_s + AT_ONCE_S)
        self._door.inside_s = 0.0

    def _take_note(self, end_s: float) -> None:
        found = self._peers.catch_up()
        for _ in range(EVENTS_AT_ONCE):
            try:
                subscription = read(self._socket.recv(_LAST, copy=False))
            except zmq.Again:
                break
            prefix = None if subscription is None else self._peers.change(subscription)
            if prefix is not None:
                found.append(prefix)
            if time.monotonic() - self._door.waited_s > end_s:
                break
        self._wanted.update(found)
        if len(self._wanted) > MAX_WANTED:
            self._wanted = {b""}

    def _replay(self) -> None:
        if not self._wanted:
            return
        now = time.monotonic()
        self._replays = min(REPLAYS, self._replays + (now - self._replayed_s) / REPLAY_S)
        self._replayed_s = now
        if self._replays < 1:
            return
        wanted, self._wanted = tuple(self._wanted), set()
        due = [entry for entry in self._latched.items() if entry[0].startswith(wanted)]
        if due:
            self._replays -= 1
        for name, payload in due:
            self._send([name, payload])

    def forget(self, source: str) -> None:
        """See `Forgetful`. New subscribers are sent nothing of `source` any more."""
        for kind in LATCHED:
            self._latched.pop(topic(kind, source), None)

    def close(self) -> None:
        """See `Sink.close`. What is queued gets 200 ms to leave."""
        has_ended = self._door.close()
        self._socket.close(linger=200)
        if has_ended:  # else it would wait for the door's sockets
            self._context.term()
        if self._lock:
            self._lock.close()

    def _send(self, frames: list[bytes]) -> None:
        self._door.inside_s = time.monotonic()
        try:  # `suppress` would cost every message a third of what sending it does
            self._socket.send(frames[0], _MORE)
            self._socket.send(frames[1], _LAST)
        except zmq.Again:  # XPUB drops by itself; this can't happen while XPUB_NODROP is off
            return
        finally:
            self._door.inside_s = 0.0


def check(options: Options) -> None:
    """Everything that can be checked without opening a socket. Raises ConfigError, InputError."""
    check_endpoint(options.bind, options.insecure or options.curve is not None)
    if options.curve is not None:
        keys.read_pair(Path(options.curve.secret_key))
        keys.read_list(Path(options.curve.allow))


def _configure(socket: zmq.Socket[bytes], options: Options, pair: keys.KeyPair | None) -> None:
    # Tell of every subscription, or a second subscriber would get no status; and of the end of each, or a peer would be
    # held to have what it has given up while another has it too.
    socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    socket.setsockopt(zmq.SNDHWM, options.high_water_mark)
    socket.setsockopt(zmq.RCVHWM, INBOUND)
    socket.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER_BYTES)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_ZMTP_FRAME_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    # No heartbeats of ours: libzmq (4.3.5) aborts the process where one is due on a connection that has ended while its
    # subscriptions still wait (libzmq issues 4364 and 4767). The kernel finds out who has gone.
    for option, value in ((zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 10), (zmq.TCP_KEEPALIVE_INTVL, 5)):
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    socket.setsockopt(zmq.TCP_MAXRT, UNREAD_MS)
    if pair is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
    socket.setsockopt(zmq.IPV6, "[" in options.bind)


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    umask = os.umask(0o117)  # an IPC socket is for its owner and group
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            raise TemporaryError(
                f"publish.bind: {endpoint} is in use by another program",
                "is edgeinfer running already? --bind chooses another",
            ) from None
        if error.errno in SCARCE:
            raise TemporaryError(f"publish.bind: {endpoint}: {error.strerror}", "try again") from None
        raise ConfigError(
            f"publish.bind: {endpoint}: {error.strerror or error}",
            "bind to an address of this machine, or a path in an existing folder",
        ) from None
    finally:
        os.umask(umask)
