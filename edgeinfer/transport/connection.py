"""A subscriber's connection to a daemon: the socket, CURVE where keys are given, and why a daemon turns it away."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import zmq
from zmq.utils.monitor import parse_monitor_message

from edgeinfer.errors import UsageError
from edgeinfer.guard.limits import MAX_EVENTS, MAX_MESSAGE_BYTES, MAX_PARTS
from edgeinfer.transport import keys
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT

RETRY_S = 1.0
"""ZeroMQ itself gives up for ever on a daemon that refuses a key; the key may be allowed a moment later."""
IDLE_S, PROBE_S, PROBES = 5, 2, 3
"""TCP keep-alive: a machine that has lost its network is looked for again after eleven seconds.

No heartbeats of ZeroMQ: where one is due on a connection that has just ended, libzmq 4.3.5 may abort the process."""
RECONNECT_MS, SLOWEST_RECONNECT_MS = 50, 200
"""After a connection that failed; twice as long each time. The daemon gives waiting subscribers a moment, no more."""
SURE = 3
"""A handshake that breaks off so often in a row was no accident."""

_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_EVENTS = _FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED


class Connection:
    """A SUB socket that is connected to `endpoint`; the daemon need not be there yet. Not thread-safe.

    `refused` says why the daemon turns us away, empty while it doesn't. It is kept current by `poll`.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Iterable[bytes],
        high_water_mark: int = 1000,
        server_key: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        """`server_key` is the daemon's public key or a .pub file, `key` our own .key file.

        Raises UsageError for an endpoint that is none or one key without the other, and what `keys` raises.
        """
        pair = _pair(server_key, key)
        self.refused = ""
        self._endpoint = endpoint
        self._secured = pair is not None
        self._failures = 0
        self._retry_s = 0.0
        self._skipping = False
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.SUB)
        self._monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(_EVENTS)
        try:
            _configure(self.socket, high_water_mark)
            if pair is not None:
                _secure(self.socket, *pair)
            for topic in topics:
                self.socket.setsockopt(zmq.SUBSCRIBE, topic)
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            hint = f"an endpoint looks like {DEFAULT_ENDPOINT}"
            raise UsageError(f"{endpoint!r}: {error.strerror}", hint) from None

    def poll(self, timeout_ms: int | None) -> bool:
        """Whether a message is there, after waiting for one at most so long; None waits for ever."""
        end = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        while not self.socket.poll(self._slice(end)):
            self._listen()
            if end is not None and time.monotonic() >= end:
                return False
        self._listen()
        return True

    def read(self, end: float | None = None) -> list[bytes] | None:
        """The next message's parts, if one is there: MAX_PARTS at most, and one more where there were more.

        A message of many parts is thrown away until `end` (time.monotonic) at the latest, and further by the next call.
        """
        parts: list[bytes] = []
        try:
            if self._skipping and not self._skip(end):
                return None
            parts.append(self.socket.recv(zmq.NOBLOCK))
            while self.socket.getsockopt(zmq.RCVMORE) and len(parts) <= MAX_PARTS:
                parts.append(self.socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            return parts or None
        self._skipping = bool(self.socket.getsockopt(zmq.RCVMORE))
        if self._skipping:
            self._skip(end)
        return parts

    def _skip(self, end: float | None) -> bool:
        """Whether the rest of a message has been thrown away."""
        while self.socket.getsockopt(zmq.RCVMORE):
            if end is not None and time.monotonic() >= end:
                return False
            self.socket.recv(zmq.NOBLOCK)
        self._skipping = False
        return True

    def close(self) -> None:
        """Disconnects."""
        self.socket.disable_monitor()
        self._monitor.close(linger=0)
        self.socket.close(linger=0)
        self._context.term()

    @staticmethod
    def _slice(end: float | None) -> int:
        """Milliseconds to wait before the monitor is looked at again."""
        left_s = RETRY_S if end is None else end - time.monotonic()
        return max(0, round(min(left_s, RETRY_S / 4) * 1000))

    def _listen(self) -> None:
        for _ in range(MAX_EVENTS):
            if not self._monitor.poll(0):
                break
            event = parse_monitor_message(self._monitor.recv_multipart())
            self._note(event["event"])
        if self._retry_s and time.monotonic() >= self._retry_s:
            self._retry_s = 0.0
            self.socket.disconnect(self._endpoint)
            self.socket.connect(self._endpoint)

    def _note(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.refused, self._failures = "", 0
            return
        self._failures += 1
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.refused = "the daemon does not allow this key; there: edgeinfer keys allow LIST OUR.pub"
            self._retry_s = time.monotonic() + RETRY_S
            return
        if self._failures >= SURE or event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self.refused = (
                "the daemon's public key is another one than --server-key, or it uses no keys"
                if self._secured
                else "the daemon wants a key (--server-key and --key), or what answers there is no daemon"
            )
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._retry_s = time.monotonic() + RETRY_S


def _pair(server_key: str | Path | None, key: str | Path | None) -> tuple[str, keys.KeyPair] | None:
    if server_key is None and key is None:
        return None
    if server_key is None or key is None:
        raise UsageError("the daemon's public key and a key of one's own belong together", "--server-key and --key")
    return keys.read_public(str(server_key)).public, keys.read_pair(Path(key))


def _configure(socket: zmq.Socket[bytes], high_water_mark: int) -> None:
    socket.setsockopt(zmq.RCVHWM, high_water_mark)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, PROBE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, PROBES)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, SLOWEST_RECONNECT_MS)


def _secure(socket: zmq.Socket[bytes], server: str, pair: keys.KeyPair) -> None:
    socket.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
