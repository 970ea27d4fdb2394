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
from zmq.auth.thread import ThreadAuthenticator

from edgeinfer.errors import ConfigError, EdgeinferError, TemporaryError
from edgeinfer.messages import Encoding, Message, encode, kind_of, topic
from edgeinfer.transport import keys
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT, check_endpoint, reaches_out
from edgeinfer.transport.ipc import lock_ipc
from edgeinfer.transport.peers import Peers
from edgeinfer.types import Result

log = logging.getLogger(__name__)

LATCHED = ("info", "status")
_LAST, _MORE = (
    int(zmq.NOBLOCK),
    int(zmq.NOBLOCK) | int(zmq.SNDMORE),
)  # as plain numbers: an enum's `|` costs microseconds
REPLAY_S = 0.05
"""Latched messages are sent again at most so often: they go to everybody, and asking for them costs nothing."""
REFRESH_S = 0.5
INBOUND = 4
"""Subscriptions that one peer may have under way. What is more waits in the kernel, at the peer's expense; without
that bound a peer makes libzmq grow by 300 MB a second and holds up every send (measured)."""
MAX_SUBSCRIPTION_BYTES = 4096
"""Subscriptions are all that we expect from a peer."""
HANDSHAKE_MS = 5000
"""Whoever has not said by then what he is has to go."""
HEARTBEAT_MS, SILENCE_MS = 2000, 6000
"""A peer is asked so often whether it is there, and given up after so long without an answer."""
DOMAIN = "edgeinfer"
"""Without a ZAP domain libzmq lets in any client that knows the server's public key (zmq_setsockopt(3))."""


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

    def __init__(self, options: Options) -> None:
        check(options)
        if reaches_out(options.bind) and options.curve is None:
            log.warning("publish: %s: whoever can reach it reads the detections (insecure: true)", options.bind)
        self._encoding: Encoding = options.format
        self._latched: dict[bytes, bytes] = {}
        self._wanted: set[bytes] = set()
        self._next_replay_s = self._next_refresh_s = 0.0
        self._lock = lock_ipc(options.bind)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._peers = Peers(self._socket)
        self._guard = None if options.curve is None else Guard(self._context, self._socket, options.curve)
        _configure(self._socket, options)
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
        self._send(frames)

    def service(self) -> None:
        """Sends latched messages to whoever has just subscribed to them, and lets go of who must not stay."""
        self._peers.update()
        for _ in range(1000):  # a flood of subscriptions must not hold the publisher up
            try:
                prefix = self._peers.event(self._socket.recv(zmq.NOBLOCK, copy=False))
            except zmq.Again:
                break
            if prefix is not None:
                self._wanted.add(prefix)
        self._replay()
        self._refresh()

    def _replay(self) -> None:
        if not self._wanted or time.monotonic() < self._next_replay_s:
            return
        self._next_replay_s = time.monotonic() + REPLAY_S
        wanted, self._wanted = tuple(self._wanted), set()
        for name, payload in self._latched.items():
            if name.startswith(wanted):
                self._send([name, payload])

    def forget(self, source: str) -> None:
        """See `Forgetful`. New subscribers are sent nothing of `source` any more."""
        for kind in LATCHED:
            self._latched.pop(topic(kind, source), None)

    def _refresh(self) -> None:
        if self._guard is not None and time.monotonic() >= self._next_refresh_s:
            self._next_refresh_s = time.monotonic() + REFRESH_S
            self._guard.refresh(self._peers)

    def close(self) -> None:
        """See `Sink.close`. What is queued gets 200 ms to leave."""
        self._peers.close()
        self._socket.close(linger=200)
        if self._guard is not None:
            self._guard.close()
        self._context.term()
        if self._lock:
            self._lock.close()

    def _send(self, frames: list[bytes]) -> None:
        try:
            self._socket.send(frames[0], _MORE)
            self._socket.send(frames[1], _LAST)
        except zmq.Again:  # XPUB drops by itself; this can't happen while XPUB_NODROP is off
            return


class Guard:
    """Lets in the clients whose key is on the list. Made before the socket is bound.

    A thread of pyzmq's answers libzmq's questions (ZAP, ZeroMQ RFC 27); were it to end, nobody would be let in.
    """

    MAX_TOLD = 20
    """So many unknown keys are named one by one."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], owner: zmq.Socket[bytes], options: Curve) -> None:
        """Raises what `keys.read_pair` and `keys.read_list` raise."""
        pair = keys.read_pair(Path(options.secret_key))
        self._allowed = keys.AllowList(Path(options.allow))
        self._told: set[str] = set()
        quiet = logging.getLogger(f"{__name__}.zap")
        quiet.setLevel(logging.CRITICAL)  # it would write a line per client; ours say more
        self._authenticator = ThreadAuthenticator(context, log=quiet)
        self._authenticator.configure_curve_callback(DOMAIN, self)
        self._authenticator.start()
        owner.setsockopt(zmq.CURVE_SERVER, 1)
        owner.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        owner.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)

    def callback(self, domain: str, key: bytes) -> bool:
        """pyzmq's question, from its thread: may the holder of this public key (Z85) come in?"""
        self._allowed.refresh()
        public = key.decode()
        if public in self._allowed:
            return True
        if public not in self._told and len(self._told) < self.MAX_TOLD:
            self._told.add(public)
            log.warning("publish: a client was refused, its key %s is not on the list", public)
        return False

    def refresh(self, peers: Peers) -> None:
        """Reads the list again where it has changed, and cuts those who are not on it any more."""
        if self._allowed.refresh() and self._allowed.error:
            log.warning("publish.curve.allow: %s; nobody is let in", self._allowed.error)
        peers.keep(self._allowed)

    def close(self) -> None:
        """Ends the thread. Call once the socket is closed."""
        self._authenticator.stop()


def check(options: Options) -> None:
    """Everything that can be checked without opening a socket. Raises ConfigError, InputError."""
    check_endpoint(options.bind, options.insecure or options.curve is not None)
    if options.curve is not None:
        keys.read_pair(Path(options.curve.secret_key))
        keys.read_list(Path(options.curve.allow))


def _configure(socket: zmq.Socket[bytes], options: Options) -> None:
    # Tell of every subscription, or a second subscriber would get no status; and of the end of each, or a peer would be
    # held to have what it has given up while another has it too.
    socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    socket.setsockopt(zmq.SNDHWM, options.high_water_mark)
    socket.setsockopt(zmq.RCVHWM, INBOUND)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
    for option, value in ((zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 30), (zmq.TCP_KEEPALIVE_INTVL, 10)):
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
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
        raise ConfigError(
            f"publish.bind: {endpoint}: {error.strerror or error}",
            "bind to an address of this machine, or a path in an existing folder",
        ) from None
    finally:
        os.umask(umask)
