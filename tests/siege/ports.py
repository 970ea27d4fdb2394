"""Attacks by who has no key: connections, bytes that are no ZeroMQ, odd requests over HTTP. Programs, all endless."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

HOST = "127.0.0.1"
ABORT = struct.pack("ii", 1, 0)
CURVE = b"\xff" + bytes(8) + b"\x7f\3\1" + b"CURVE".ljust(20, b"\0") + bytes(32)
NULL = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
GREETINGS = [
    CURVE,
    NULL,
    b"\xff" + bytes(8) + b"\x7f\3\0" + b"PLAIN".ljust(20, b"\0") + bytes(32),
    b"\xff" + bytes(7) + b"\1\x7f\1\1",  # ZMTP 2.0
    b"\1\0",  # ZMTP 1.0
    b"\xff" * 64,
    b"",
]


def connect(port: int) -> socket.socket:
    """A connection that is aborted at its end, so that it leaves no port waiting."""
    peer = socket.create_connection((HOST, port), timeout=2)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    return peer


def crowd(port: int, count: int, hold_s: float) -> None:
    """So many connections at a time that say nothing, held for so long, again and again."""
    while True:
        peers: list[socket.socket] = []
        for _ in range(count):
            with suppress(OSError):
                peers.append(connect(port))
        time.sleep(hold_s)
        for peer in peers:
            peer.close()


def knocking(port: int, per_s: float) -> None:
    """Connections that are ended at once."""
    while True:
        with suppress(OSError):
            connect(port).close()
        time.sleep(1 / per_s)


def handshakes(port: int, seed: int) -> None:
    """Greetings and handshakes, right, damaged or invented, some byte by byte."""
    rng = random.Random(seed)
    while True:
        with suppress(OSError), connect(port) as peer:
            peer.settimeout(0.05)
            _say(peer, damaged(rng, rng.choice(GREETINGS)), rng)
            for _ in range(rng.randrange(4)):
                with suppress(TimeoutError):
                    peer.recv(4096)
                _say(peer, command(rng), rng)
        time.sleep(0.002)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The same, cut, lengthened, or with some bytes changed; often as it was."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 3))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    kind = rng.random()
    if kind < 0.2:
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    return bytes(changed) + (rng.randbytes(rng.choice((1, 100, 60_000))) if kind > 0.9 else b"")


def command(rng: random.Random) -> bytes:
    """A command of a handshake: of CURVE (RFC 26), of NULL, or of nobody's."""
    name, size = rng.choice(((b"HELLO", 194), (b"INITIATE", 250), (b"READY", 40), (b"ERROR", 8), (b"WELCOME", 160)))
    body = bytes([len(name)]) + name + rng.randbytes(rng.choice((size, size, rng.randrange(400))))
    if rng.random() < 0.2:
        return b"\6" + rng.choice((1 << 63, 1 << 40, len(body))).to_bytes(8, "big") + body  # a long one
    return bytes([rng.choice((4, 4, 0, 1)), len(body) & 0xFF]) + body


def _say(peer: socket.socket, data: bytes, rng: random.Random) -> None:
    if rng.random() < 0.1:
        for byte in data[:40]:
            peer.sendall(bytes([byte]))
    else:
        peer.sendall(data)


def web_requests(port: int, seed: int) -> None:
    """HTTP, as browsers and scanners send it; to a port where somebody else listens."""
    rng = random.Random(seed)
    _over_and_over(port, lambda: rng.choice((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /", b"\x16\x03\x01\x02\0")))


def slow(port: int, count: int) -> None:
    """Slowloris: a byte of a header a second, on so many connections."""
    peers: list[socket.socket] = []
    while True:
        while len(peers) < count:
            try:
                peers.append(connect(port))
                peers[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
            except OSError:
                break
        peers = [peer for peer in peers if _still_there(peer)]
        time.sleep(1)


def _still_there(peer: socket.socket) -> bool:
    try:
        peer.sendall(b"x")
    except OSError:
        peer.close()
        return False
    return True


def odd_requests(port: int, seed: int) -> None:
    """Huge headers, endless lines, strange methods, rubbish."""
    rng = random.Random(seed)
    kinds: list[Callable[[], bytes]] = [
        lambda: b"GET /metrics HTTP/1.1\r\n" + b"".join(b"X%d: %s\r\n" % (n, b"y" * 200) for n in range(1000)),
        lambda: b"GET /" + b"a" * 1_000_000,
        lambda: b"G" * 100_000 + b" / HTTP/1.1\r\n\r\n",
        lambda: os.urandom(rng.randrange(1, 20_000)),
        lambda: b"HEAD /metrics HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        lambda: b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        lambda: b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n" + bytes(5000),
        lambda: b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50,
    ]
    _over_and_over(port, lambda: rng.choice([kind() for kind in kinds]))


def _over_and_over(port: int, request: Callable[[], bytes]) -> None:
    while True:
        with suppress(OSError), connect(port) as peer:
            peer.settimeout(0.2)
            peer.sendall(request())
            peer.recv(4096)
        time.sleep(0.005)
