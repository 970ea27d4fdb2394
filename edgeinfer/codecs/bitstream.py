"""Packets as NVDEC reads them: H.264 and H.265 with start codes (Rec. ITU-T H.264, annex B), others as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from edgeinfer.codecs.facts import StreamFacts

START = b"\0\0\1"
HEAD_BYTES = 4096
"""Parameter sets come first in a packet; so far they are looked for."""
_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_SEQUENCE = {"h264": (0x1F, 0, 7), "hevc": (0x3F, 1, 33)}
"""Of a unit's first byte: the mask and the shift of its type, and the type of a sequence parameter set."""


class Bitstream:
    """The bytes of one stream's packets. `parameters`: the sequence parameter sets that came last, empty before."""

    def __init__(self, stream: Any) -> None:
        self._codec = stream.codec_context.name
        filtered = self._codec in _FILTERS
        whole = isinstance(stream, StreamFacts)  # its packets have been through the filter
        self._filter = BitStreamFilterContext(_FILTERS[self._codec], stream) if filtered and not whole else None
        extra = stream.codec_context.extradata or b""
        self._head = extra if filtered and _starts(extra) else b""
        self.parameters = sequence_sets(self._head, self._codec)

    def head(self) -> bytes:
        """What has to come before the first packet: parameter sets that are told beside the stream (RTSP's SDP).

        Those of a file are put in by the filter.
        """
        return self._head

    def units(self, packet: Any) -> Iterator[bytes]:
        """The packet's bytes; a packet that makes no sense gives nothing."""
        if self._filter is None:
            yield bytes(packet)
            return
        try:
            for made in self._filter.filter(packet):
                yield bytes(made)
        except (av.error.InvalidDataError, ValueError):
            return

    def changes(self, data: bytes) -> bool:
        """Whether the pictures from here on are of another kind: other sequence parameter sets than before."""
        found = sequence_sets(data, self._codec)
        before, self.parameters = self.parameters, found or self.parameters
        return bool(found and before and found != before)


def sequence_sets(data: bytes, codec: str) -> bytes:
    """The sequence parameter sets at the beginning of a packet, one after the other; empty where there are none."""
    if codec not in _SEQUENCE:
        return b""
    mask, shift, wanted = _SEQUENCE[codec]
    return b"".join(unit for unit in _units(data[:HEAD_BYTES]) if unit[0] >> shift & mask == wanted)


def _units(data: bytes) -> Iterator[bytes]:
    """The units between start codes; zeros at the end of one belong to none (annex B.1.1)."""
    begin = data.find(START)
    while begin >= 0:
        following = data.find(START, begin + len(START))
        unit = data[begin + len(START) : following if following >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        begin = following


def _starts(data: bytes) -> bool:
    return data.startswith((START, b"\0" + START))
