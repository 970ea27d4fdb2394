"""Clips of moving shapes, encoded by FFmpeg, and what FFmpeg's own decoder makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from edgeinfer.codecs.decoder import Decoded
from edgeinfer.codecs.software import SoftwareDecoder
from edgeinfer.gpu.surfaces import DeviceSurface, downloads
from edgeinfer.pictures.host import HostSurface

FAST = {"preset": "ultrafast", "tune": "zerolatency"}
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", FAST),
    "h264-b": ("libx264", "yuv420p", {"preset": "veryfast", "bf": "2", "g": "12"}),
    "h265": ("libx265", "yuv420p", {**FAST, "x265-params": "log-level=none"}),
    "h265-b": ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=12"}),
    "h265-10": ("libx265", "yuv420p10le", {**FAST, "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
}
"""Encoder, its format, its options."""


def write(path: Path, kind: str, size: tuple[int, int] = (320, 240), pictures: int = 24, turned: int = 0) -> Path:
    """A clip at 25 pictures a second; to be turned by so many degrees."""
    codec, pixels, options = KINDS[kind]
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if turned:
            stream.set_display_rotation(turned)
        for index in range(pictures):
            frame = av.VideoFrame.from_ndarray(drawn(index, size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame.reformat(format=pixels)))
        file.mux(stream.encode())
    return path


def drawn(index: int, size: tuple[int, int]) -> Any:
    """(H, W, 3) uint8."""
    width, height = size
    x, y = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    channel = np.array([1, 2, 3])
    return ((x * channel + y * 2 + index * 9) % 256).astype(np.uint8)


def packets(path: Path) -> tuple[Any, list[Any]]:
    """The clip's stream and packets. The stream keeps the file open."""
    file = av.open(str(path))
    stream = file.streams.video[0]
    return stream, [packet for packet in file.demux(stream) if packet.size]


def in_software(path: Path) -> Iterator[Decoded]:
    """What FFmpeg's decoder gives."""
    stream, found = packets(path)
    decoder = SoftwareDecoder(stream, "clip", True, "")
    for packet in found:
        yield from decoder.decode(packet)
    yield from decoder.flush()


def planes(picture: Any) -> list[Any]:
    """Luma, u and v as arrays in host memory."""
    if isinstance(picture, DeviceSurface):
        memory = np.empty(picture.shape.size, np.uint8)
        downloads().rows(memory.reshape(1, -1), picture.lease.address, memory.nbytes, picture.written)
        picture = HostSurface(memory, picture.shape, picture.colour)
    assert isinstance(picture, HostSurface)
    return [np.array(plane) for plane in (picture.luma, *picture.chroma)]


def assert_same(found: Any, expected: Any) -> None:
    """Sample by sample."""
    for got, wanted in zip(planes(found), planes(expected), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert found.colour == expected.colour
