"""What hostile cameras that speak RTSP well send: streams and descriptions of which nothing good comes."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Iterable, Iterator

import av

from tests.hostile_camera import PPS, HostileCamera, endless_fragments, sdp

PACE = 20 << 20
"""Bytes a second."""
PART = 50_000


def paced(blocks: Iterable[bytes], bytes_per_s: int = PACE) -> Iterator[bytes]:
    """The same, no faster."""
    for block in blocks:
        yield block
        time.sleep(len(block) / bytes_per_s)


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
