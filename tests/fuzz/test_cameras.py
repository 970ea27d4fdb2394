"""Network cameras at random: answers, descriptions and pictures that were damaged on the way, read as the daemon does.

Whatever comes, a source gives pictures or an error of one line, its process keeps to its memory, and none is left.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import closing, suppress

import av
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.errors import StalledError
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.isolation.source import Order, open_isolated
from edgeinfer.sources import rtsp
from edgeinfer.sources.demo import Demo, Options
from tests.faulty_proxy import faulty_proxy
from tests.fuzz.test_fuzz import answered, damaged, fuzz
from tests.hostile_camera import hostile_camera, sdp

QUICK = rtsp.Options(decoder="av", connect_s=0.5, silence_s=0.3)
MEMORY = 64 << 20
READS = 6
BEYOND = 400 << 20
"""Resident memory that no process of such a bound can reach, its libraries included."""


def read_as_the_daemon_does(url: str) -> None:
    """Opens the camera and reads a little."""
    with answered():
        source = open_isolated(Order("rtsp", url, QUICK), "cam", lambda _: 10, MEMORY)
        with closing(source):
            for _ in range(READS):
                with suppress(UnreadableItem, StalledError):
                    source.read()
                with suppress(psutil.NoSuchProcess):
                    assert psutil.Process(source.pid).memory_info().rss < BEYOND
    own = psutil.Process()
    assert not [child for child in own.children(recursive=True) if child.ppid() != own.pid], "a process was left"


@functools.cache
def stream() -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """H.264 of a few pictures as RTP payloads (RFC 6184): both parameter sets, and what follows."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 192, "yuv420p"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "slices=1:annexb=1"}
    demo = Demo(Options(width=320, height=192, realtime=False))
    coded = b""
    for index in range(8):
        for packet in encoder.encode(av.VideoFrame.from_ndarray(demo.render(index), format="bgr24")):
            coded += bytes(packet)
    units = [unit.removeprefix(b"\x00") for unit in coded.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    sps, pps = (next(unit for unit in units if unit[0] & 31 == kind) for kind in (7, 8))
    return sps, pps, tuple(payload for unit in units for payload in packed(unit))


def packed(unit: bytes, most: int = 1200) -> Iterator[bytes]:
    """A NAL unit as it is, or in fragments (FU-A)."""
    if len(unit) <= most:
        yield unit
        return
    pieces = [unit[1:][place : place + most] for place in range(0, len(unit) - 1, most)]
    for number, piece in enumerate(pieces):
        edge = (0x80 if number == 0 else 0) | (0x40 if number == len(pieces) - 1 else 0)
        yield bytes([unit[0] & 0xE0 | 28, edge | unit[0] & 31]) + piece


@pytest.mark.slow
def test_what_is_not_damaged_gives_pictures() -> None:
    sps, pps, payloads = stream()
    with hostile_camera(lambda: payloads * 20, sdp(sps, pps)) as camera:
        source = open_isolated(Order("rtsp", camera.url, QUICK), "cam", lambda _: 10, MEMORY)
        with closing(source):
            capture = source.read()
            assert capture is not None
            assert capture.image.shape == (192, 320, 3)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The stream with some packets damaged, lost, doubled or made up."""
    payloads: list[bytes] = []
    for payload in stream()[2]:
        fate = draw(st.integers(0, 9))
        if fate == 0:
            continue
        payloads += [draw(damaged(payload)) if fate == 1 else payload] * (2 if fate == 2 else 1)
        if fate == 3:
            payloads.append(draw(st.binary(max_size=60)))
    return payloads


@given(streams(), st.booleans())
@fuzz(0.002, short=6)
def test_pictures_of_network_cameras(payloads: list[bytes], marker: bool) -> None:
    sps, pps, _ = stream()
    with hostile_camera(lambda: payloads, sdp(sps, pps), marker) as camera:
        read_as_the_daemon_does(camera.url)


def descriptions() -> st.SearchStrategy[str]:
    sps, pps, _ = stream()
    whole = sdp(sps, pps).encode()
    return (damaged(whole) | st.binary(max_size=200)).map(lambda data: data.decode("latin-1"))


@given(st.deferred(descriptions))
@fuzz(0.002, short=6)
def test_descriptions_of_network_cameras(description: str) -> None:
    with hostile_camera(lambda: stream()[2], description) as camera:
        read_as_the_daemon_does(camera.url)


heads = st.sampled_from(
    [
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE\r\n\r\n",
        b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Digest realm=x, nonce=y\r\n\r\n",
        b"RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n--x\r\nContent-Length: 9\r\n",
    ]
)


@pytest.mark.slow
@given(st.binary(max_size=300) | heads.flatmap(damaged) | st.builds(bytes.__mul__, heads, st.integers(1, 40)))
@fuzz(0.002, short=6)
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_answers_of_network_cameras(scheme: str, answer: bytes) -> None:
    with faulty_proxy(0, answer) as proxy:
        read_as_the_daemon_does(f"{scheme}://127.0.0.1:{proxy.port}/x")
