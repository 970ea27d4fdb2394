"""A clip as an RTSP server sends it: NAL units in RTP payloads (RFC 6184 for H.264, RFC 7798 for H.265)."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from edgeinfer.errors import InputError, UnavailableError

MAX_PAYLOAD = 1400
"""Bytes of one RTP payload, as cameras make them for Ethernet."""
CLOCK_HZ = 90_000
START = b"\0\0\0\1"


@dataclass(frozen=True, slots=True)
class Access:
    """One picture: its RTP payloads, when they are due and when it is shown, in ticks of CLOCK_HZ from the beginning.

    With B-frames the two have another order.
    """

    payloads: tuple[bytes, ...]
    due: int
    shown: int


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip's pictures in order of decoding, how long they take together, and what SDP says of it."""

    codec: str
    parameters: str
    pictures: tuple[Access, ...]
    ticks: int

    @property
    def sdp(self) -> str:
        """The description of a session that sends it."""
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=edgeinfer bench", "t=0 0", "m=video 0 RTP/AVP 96"]
        lines += ["c=IN IP4 0.0.0.0", f"a=rtpmap:96 {self.codec}/{CLOCK_HZ}", f"a=fmtp:96 {self.parameters}"]
        return "\r\n".join([*lines, "a=control:track", ""])


def read_clip(path: Path) -> Clip:
    """The first video of a file. Raises InputError for another codec, UnavailableError without PyAV."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        raise UnavailableError(f"PyAV can't be imported: {error}", "pip install 'edgeinfer[rtsp]'") from error
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return _read(av, path, container, stream)
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path}: no video that can be read ({type(error).__name__})") from error


def _read(av: Any, path: Path, container: Any, stream: Any) -> Clip:
    codec = stream.codec_context.name
    if codec not in ("h264", "hevc"):
        raise InputError(f"{path}: {codec} can't be sent as a camera's stream here", "give a clip in H.264 or H.265")
    filtered = av.BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
    pack = pack_h264 if codec == "h264" else pack_h265
    units, parameters = list[list[bytes]](), dict[int, bytes]()
    times = list[tuple[int | None, int | None]]()
    for packet in container.demux(stream):
        for part in filtered.filter(packet if packet.size else None):
            units.append(split(bytes(part)))
            times.append((part.dts, part.pts))
            _note(codec, units[-1], parameters)
    if not units:
        raise InputError(f"{path}: holds no picture")
    each = round(CLOCK_HZ / float(stream.average_rate or 30))
    due, shown = (_from_zero(list(column), stream.time_base, each) for column in zip(*times, strict=True))
    pictures = tuple(
        Access(tuple(payload for unit in access for payload in pack(unit)), *when)
        for access, *when in zip(units, due, shown, strict=True)
    )
    name = {"h264": "H264", "hevc": "H265"}[codec]
    return Clip(name, _sdp_parameters(codec, parameters), pictures, max(*due, *shown) + each)


def _from_zero(times: Sequence[int | None], unit: Fraction, each: int) -> list[int]:
    """Times in `unit` of a second as ticks from the first; in steps of `each` where the file does not say."""
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return [number * each for number in range(len(times))]
    return [round((time - min(known)) * unit * CLOCK_HZ) for time in known]


def split(stream: bytes) -> list[bytes]:
    """The NAL units of a byte stream (Rec. ITU-T H.264, annex B)."""
    parts = stream.replace(START, START[1:]).split(START[1:])
    return [part for part in parts if part]


def _note(codec: str, units: list[bytes], parameters: dict[int, bytes]) -> None:
    """Remembers the first of each parameter set by its type."""
    for unit in units:
        kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
        if kind in ((7, 8) if codec == "h264" else (32, 33, 34)):
            parameters.setdefault(kind, unit)


def _sdp_parameters(codec: str, found: dict[int, bytes]) -> str:
    text = {kind: base64.b64encode(unit).decode() for kind, unit in found.items()}
    if codec == "h264":
        return f"packetization-mode=1;sprop-parameter-sets={text.get(7, '')},{text.get(8, '')}"
    return ";".join(f"sprop-{name}={text.get(kind, '')}" for name, kind in (("vps", 32), ("sps", 33), ("pps", 34)))


def pack_h264(unit: bytes) -> list[bytes]:
    """A NAL unit whole, or in fragments (FU-A)."""
    if len(unit) <= MAX_PAYLOAD:
        return [unit]
    indicator, kind = unit[0] & 0xE0 | 28, unit[0] & 31
    return _fragments(bytes([indicator]), kind, unit[1:])


def pack_h265(unit: bytes) -> list[bytes]:
    """A NAL unit whole, or in fragments (FU)."""
    if len(unit) <= MAX_PAYLOAD:
        return [unit]
    header = bytes([unit[0] & 0x81 | 49 << 1, unit[1]])
    return _fragments(header, unit[0] >> 1 & 63, unit[2:])


def _fragments(header: bytes, kind: int, body: bytes) -> list[bytes]:
    step = MAX_PAYLOAD - len(header) - 1
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    marks = [(index == 0) << 7 | (index == len(parts) - 1) << 6 | kind for index in range(len(parts))]
    return [header + bytes([mark]) + part for mark, part in zip(marks, parts, strict=True)]
