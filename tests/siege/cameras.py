"""Network cameras that attack whoever reads them, each a small server in a process of its own.

What a camera does once somebody is connected is a function of the connection; it ends when that does. Those that flood
do so at some megabytes a second: enough to fill any memory in a minute, and two cores still have time for others.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from tests.hostile_camera import sdp
from tests.siege import program
from tests.siege.streams import PART, paced, streams

Behaviour = Callable[[socket.socket, random.Random, int], None]


def _request(peer: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = peer.recv(4096)
        if not part or len(head) > 1 << 16:
            raise OSError("gone")
        head += part
    return head


def _sequence(head: bytes) -> bytes:
    return next((line for line in head.split(b"\r\n") if line.lower().startswith(b"cseq")), b"CSeq: 1")


def _say(peer: socket.socket, blocks: Iterable[bytes]) -> None:
    for block in paced(blocks):
        peer.sendall(block)


def _forever(make: Callable[[], bytes]) -> Iterator[bytes]:
    while True:
        yield make()


def _endless_description(peer: socket.socket, rng: random.Random, port: int) -> None:
    while True:
        head = _request(peer)
        answer = b"RTSP/1.0 200 OK\r\n" + _sequence(head) + b"\r\n"
        if head.startswith(b"DESCRIBE"):
            size = b"Content-Length: %d\r\n\r\n" % rng.choice((2**31 - 1, 400_000_000, 100_000_000))
            peer.sendall(answer + b"Content-Type: application/sdp\r\n" + size + b"v=0\r\n")
            _say(peer, _forever(lambda: b"a=x:" + b"y" * 1000 + b"\r\n"))
        peer.sendall(answer + b"Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n")


def _endless_headers(peer: socket.socket, rng: random.Random, port: int) -> None:
    first = b"HTTP/1.1" if _request(peer).startswith(b"GET") else b"RTSP/1.0"
    peer.sendall(first + b" 200 OK\r\nCSeq: 1\r\n")
    _say(peer, _forever(lambda: b"X-%d: " % rng.randrange(10**9) + b"y" * rng.choice((10, 1000, 30_000)) + b"\r\n"))


def _byte_by_byte(peer: socket.socket, rng: random.Random, port: int) -> None:
    answer = b"RTSP/1.0 200 OK\r\n" + _sequence(_request(peer)) + b"\r\nPublic: OPTIONS, DESCRIBE\r\n\r\n"
    for byte in answer * 100:
        peer.sendall(bytes([byte]))
        time.sleep(1)


def _polite(head: bytes) -> bytes:
    """An answer that suits every request."""
    body = sdp().encode() if head.startswith(b"DESCRIBE") else b""
    extra = b"Content-Type: application/sdp\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
    size = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"RTSP/1.0 200 OK\r\n" + _sequence(head) + b"\r\n" + extra + size + body


def _too_early(peer: socket.socket, rng: random.Random, port: int) -> None:
    """Pictures before anybody asked for them, between the answers."""
    while True:
        head = _request(peer)
        for _ in range(200):
            payload = struct.pack(">BBHII", 0x80, 96, rng.randrange(65536), 0, 1) + rng.randbytes(1000)
            peer.sendall(struct.pack(">cBH", b"$", rng.choice((0, 1, 9, 255)), len(payload)) + payload)
        peer.sendall(_polite(head))


def _wrong_lengths(peer: socket.socket, rng: random.Random, port: int) -> None:
    """Packets that are shorter or longer than they say."""
    while True:
        head = _request(peer)
        peer.sendall(_polite(head))
        if head.startswith(b"PLAY"):
            _say(peer, _forever(lambda: _mislabelled(rng)))


def _mislabelled(rng: random.Random) -> bytes:
    head = struct.pack(">cBH", b"$", rng.choice((0, 0, 1, 77)), rng.choice((0, 3, 11, 65_535)))
    return head + rng.randbytes(rng.randrange(3000))


def _redirects(peer: socket.socket, rng: random.Random, port: int) -> None:
    while True:
        head = _request(peer)
        web = head.startswith(b"GET")
        target = b"%s://127.0.0.1:%d/%d" % (b"http" if web else b"rtsp", port, rng.randrange(10**9))
        first = b"HTTP/1.1 302 Found\r\nContent-Length: 0" if web else b"RTSP/1.0 302 Moved\r\n" + _sequence(head)
        peer.sendall(first + b"\r\nLocation: " + target + b"\r\n\r\n")


def _silence(peer: socket.socket, rng: random.Random, port: int) -> None:
    while peer.recv(4096):
        pass


def _parts(peer: socket.socket, first: bytes, blocks: Iterable[bytes]) -> None:
    _request(peer)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n" + first)
    _say(peer, blocks)


def jpeg(width: int, height: int, rest: bytes) -> bytes:
    """A baseline JPEG's beginning: its header says that size."""
    frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width) + b"\3\1\x22\0\2\x11\1\3\x11\1"
    return b"\xff\xd8\xff\xdb\0\x43\0" + bytes([1] * 64) + frame + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" + rest


def _huge_jpegs(peer: socket.socket, rng: random.Random, port: int) -> None:
    def part() -> bytes:
        picture = jpeg(16_000, 16_000, rng.randbytes(20_000).replace(b"\xff", b"\0") + b"\xff\xd9")
        return b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n"

    _parts(peer, b"", _forever(part))


def _endless_part(peer: socket.socket, rng: random.Random, port: int) -> None:
    _parts(peer, b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg(640, 480, b""), _forever(lambda: bytes(PART)))


RUDE: dict[str, tuple[str, Behaviour]] = {
    "endless description": ("rtsp", _endless_description),
    "endless headers": ("rtsp", _endless_headers),
    "endless headers over HTTP": ("http", _endless_headers),
    "byte by byte": ("rtsp", _byte_by_byte),
    "too early": ("rtsp", _too_early),
    "wrong lengths": ("rtsp", _wrong_lengths),
    "redirects": ("rtsp", _redirects),
    "redirects over HTTP": ("http", _redirects),
    "silence": ("rtsp", _silence),
    "huge JPEGs": ("http", _huge_jpegs),
    "endless part": ("http", _endless_part),
}
KINDS = (*streams(random.Random(0), ""), *RUDE)


def serve(kind: str, seed: int, clip: str) -> None:
    """The program: prints the camera's URL and serves whoever comes."""
    rng = random.Random(seed)
    if kind not in RUDE:
        camera = streams(rng, clip)[kind]()
        print(camera.url, flush=True)
        threading.Event().wait()
    scheme, behave = RUDE[kind]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        print(f"{scheme}://127.0.0.1:{port}/x", flush=True)
        while True:
            peer, _ = listening.accept()
            threading.Thread(target=_attend, args=(behave, peer, rng, port), daemon=True).start()


def _attend(behave: Behaviour, peer: socket.socket, rng: random.Random, port: int) -> None:
    with suppress(OSError), peer:
        behave(peer, rng, port)


@contextmanager
def hostile(kind: str, seed: int, clip: str) -> Iterator[str]:
    """Such a camera's URL, for the length of a block."""
    process = program.start("cameras", "serve", stdout=program.PIPE, kind=kind, seed=seed, clip=clip)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        program.end(process)
