"""The ZeroMQ publisher. Never blocks: a slow subscriber loses messages, and only its own."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, TextIO

import zmq
from msgspec import Meta, Struct

from edgeinfer.errors import ConfigError, EdgeinferError, TemporaryError
from edgeinfer.messages import Encoding, Message, encode, kind_of, topic
from edgeinfer.types import Result

LATCHED = ("info", "status")
_LAST, _MORE = (
    int(zmq.NOBLOCK),
    int(zmq.NOBLOCK) | int(zmq.SNDMORE),
)  # as plain numbers: an enum's `|` costs microseconds
MAX_IPC_PATH = 107
"""sun_path of a Unix socket holds 108 bytes with the final zero (unix(7))."""


class Options(Struct, frozen=True, kw_only=True):
    """`high_water_mark` bounds the messages kept for one slow subscriber. `insecure: true` allows a bind that other
    machines can reach: anybody there can then read the detections."""

    bind: str = "tcp://127.0.0.1:5555"
    format: Encoding = "json"
    high_water_mark: Annotated[int, Meta(ge=1, le=100_000)] = 64
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
        check_endpoint(options.bind, options.insecure)
        self._encoding: Encoding = options.format
        self._latched: dict[bytes, bytes] = {}
        self._lock = _lock_ipc(options.bind)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        _configure(self._socket, options)
        try:
            _bind(self._socket, options.bind)
        except EdgeinferError:
            self.close()
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        kind = kind_of(message)
        frames = [topic(kind, message.source), encode(message, self._encoding)]
        if kind in LATCHED:
            self._latched[frames[0]] = frames[1]
        self._send(frames)

    def service(self) -> None:
        """Sends latched messages to whoever has just subscribed to them."""
        wanted: list[bytes] = []
        for _ in range(1000):  # a flood of subscriptions must not hold the publisher up
            try:
                event = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if event[:1] == b"\x01":
                wanted.append(event[1:])
        for name, payload in self._latched.items():
            if any(name.startswith(prefix) for prefix in wanted):
                self._send([name, payload])

    def forget(self, source: str) -> None:
        """See `Forgetful`. New subscribers are sent nothing of `source` any more."""
        for kind in LATCHED:
            self._latched.pop(topic(kind, source), None)

    def close(self) -> None:
        """See `Sink.close`. What is queued gets 200 ms to leave."""
        self._socket.close(linger=200)
        self._context.term()
        if self._lock:
            self._lock.close()

    def _send(self, frames: list[bytes]) -> None:
        try:
            self._socket.send(frames[0], _MORE)
            self._socket.send(frames[1], _LAST)
        except zmq.Again:  # XPUB drops by itself; this can't happen while XPUB_NODROP is off
            return


def check_endpoint(endpoint: str, insecure: bool) -> None:
    """Refuses what can't work or would be heard beyond this machine. Raises ConfigError."""
    if endpoint.startswith("ipc://"):
        if endpoint == "ipc://" or "\0" in endpoint:
            raise ConfigError(f"publish.bind: {endpoint!r} names no path", "for instance ipc:///run/edgeinfer.sock")
        if len(endpoint.removeprefix("ipc://").encode()) > MAX_IPC_PATH:
            raise ConfigError(f"publish.bind: {endpoint}: longer than {MAX_IPC_PATH} bytes", "choose a shorter path")
        return
    match = re.fullmatch(r"tcp://(.+):(\d{1,5}|\*)", endpoint)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise ConfigError(
            f"publish.bind: {endpoint!r} is not an endpoint",
            "for instance tcp://127.0.0.1:5555 or ipc:///run/edgeinfer.sock",
        )
    if not insecure and not is_loopback(match[1].strip("[]")):
        raise ConfigError(
            f"publish.bind: {endpoint} can be reached from other machines, and nothing protects it there",
            "bind to 127.0.0.1, or write insecure: true under publish",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _configure(socket: zmq.Socket[bytes], options: Options) -> None:
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of every subscription, or a second subscriber would get no status
    socket.setsockopt(zmq.SNDHWM, options.high_water_mark)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, 4096)  # inbound: subscriptions are all that we expect
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
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


def _lock_ipc(endpoint: str) -> TextIO | None:
    """ZeroMQ takes over whatever lies at an IPC path, be it a daemon's socket or a file; a lock says whose it is."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc://") or path.name == "*" or str(path).startswith("@"):
        return None
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"publish.bind: {endpoint}: a file that is no socket lies there", "choose another path")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(endpoint, error) from None
    lock = _open_lock(Path(f"{path}.lock"), endpoint)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise TemporaryError(
            f"publish.bind: {endpoint} is in use: already running as PID {owner}", "--bind chooses another"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _open_lock(path: Path, endpoint: str) -> TextIO:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o660), "r+")
    except OSError as error:
        raise _refused(endpoint, error) from None


def _refused(endpoint: str, error: OSError) -> ConfigError:
    return ConfigError(f"publish.bind: {endpoint}: {error.strerror or error}", "choose another path")
