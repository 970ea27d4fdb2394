"""Network cameras that attack whoever reads them, each a small server in a process of its own.

What a camera does once somebody is connected is a function of the connection; it ends when that does. Those that flood
do so at some megabytes a second: enough to fill any memory in a minute, and two cores still have time for others.
"""

from __future__ import annotations

import base64
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import av

from tests.hostile_camera import PPS, HostileCamera, endless_fragments, sdp
from tests.siege import program

PACE = 20 << 20
"""Bytes a second."""
PART = 50_000
Behaviour = Callable[[socket.socket, random.Random, int], None]


def paced(blocks: Iterable[bytes], bytes_per_s: int = PACE) -> Iterator[bytes]:
    """The same, no faster."""
    for block in blocks:
        yield block
        time.sleep(len(block) / bytes_per_s)


# --- streams of RTP ---


class _Bits:
    def __init__(self) -> None:
        self._bits: list[int] = []

    def put(self, value: int, count: int) -> None:
        self._bits += [value >> (count - 1 - place) & 1 for place in range(count)]

    def golomb(self, value: int) -> None:
        length = (value + 1).bit_length()
        self.put(value + 1, 2 * length - 1)

    def data(self) -> bytes:
        padded = [*self._bits, 1] + [0] * (-(len(self._bits) + 1) % 8)
        plain = bytes(int("".join(map(str, padded[place : place + 8])), 2) for place in range(0, len(padded), 8))
        return plain.replace(b"\0\0", b"\0\0\3")


def sequence_set(width: int, height: int) -> bytes:
    """An H.264 sequence parameter set, baseline, for pictures of this size."""
    bits = _Bits()
    for value, count in ((0x67, 8), (66, 8), (0xC0, 8), (62, 8)):
        bits.put(value, count)
    for value in (0, 0, 2, 1):  # its number, the frame numbers' length, the kind of order, reference frames
        bits.golomb(value)
    bits.put(0, 1)
    for value in (width // 16 - 1, height // 16 - 1):
        bits.golomb(value)
    for value in (1, 1, 0, 0):  # whole frames, direct inference, no cropping, no VUI
        bits.put(value, 1)
    return bits.data()


def rubbish(rng: random.Random) -> Iterator[bytes]:
    """Payloads that are anything."""
    while True:
        yield rng.randbytes(rng.choice((0, 1, 2, 3, 20, 1400, 30_000)))


def huge_pictures(rng: random.Random, size: int) -> Iterator[bytes]:
    """Pictures of an absurd size, as the stream itself announces them again and again."""
    while True:
        yield sequence_set(size, size)
        yield PPS
        yield b"\x65\x88\x84" + rng.randbytes(3000)


def units_of(clip: str) -> list[bytes]:
    """The NAL units of a real video."""
    with av.open(clip) as container:
        video = container.streams.video[0]
        extra = bytes(video.codec_context.extradata or b"")
        first = int.from_bytes(extra[6:8], "big")
        second = int.from_bytes(extra[9 + first : 11 + first], "big")
        found = [extra[8 : 8 + first], extra[11 + first : 11 + first + second]]
        for packet in container.demux(video):
            data = bytes(packet)
            while len(data) > 4:
                size = int.from_bytes(data[:4], "big")
                found.append(data[4 : 4 + size])
                data = data[4 + size :]
    return found


def cut_short(rng: random.Random, clip: str) -> Iterator[bytes]:
    """A real stream whose pictures are cut off, exchanged and damaged."""
    units = [unit for unit in units_of(clip) if unit]
    while True:
        for unit in units:
            changed = bytearray(rng.choice(units) if rng.random() < 0.05 else unit)
            for _ in range(rng.choice((0, 0, 1, 5))):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield bytes(changed[: rng.randrange(1, len(changed) + 1) if rng.random() < 0.3 else len(changed)])
            time.sleep(0.02)


def streams(rng: random.Random, clip: str) -> dict[str, Callable[[], HostileCamera]]:
    """Cameras that speak RTSP well, and whose description or stream does not."""
    large = "".join(f"a=x{n}:{'y' * 1000}\r\n" for n in range(1000))
    many = "".join(f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:t{n}\r\n" for n in range(5000))
    sets = base64.b64encode(bytes(2_000_000)).decode()

    def camera(payloads: Callable[[], Iterable[bytes]], description: str | None = None) -> Callable[[], HostileCamera]:
        return lambda: HostileCamera(lambda: paced(payloads()), description, marker=True)

    return {
        "endless fragments": lambda: HostileCamera(lambda: paced(endless_fragments(PART))),
        "rubbish": camera(lambda: rubbish(rng)),
        "huge pictures": camera(lambda: huge_pictures(rng, 16_384), sdp(sequence_set(16_384, 16_384))),
        "large pictures": camera(lambda: huge_pictures(rng, 8192), sdp(sequence_set(8192, 8192))),
        "cut short": camera(lambda: cut_short(rng, clip)),
        "large description": camera(lambda: rubbish(rng), sdp() + large),
        "many tracks": camera(lambda: rubbish(rng), sdp() + many),
        "large parameter sets": camera(lambda: rubbish(rng), sdp().replace("sets=", f"sets={sets},")),
    }


# --- servers that don't even speak well ---


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
            peer.sendall(answer + b"Content-Type: application/sdp\r\nContent-Length: 2147483647\r\n\r\nv=0\r\n")
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
