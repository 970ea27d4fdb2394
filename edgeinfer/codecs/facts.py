"""What a decoder has to know of a stream, for one whose packets come from another process."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class CodecFacts:
    """What `NvDecoder` asks of PyAV's codec context, under the same names."""

    name: str
    width: int
    height: int
    pix_fmt: str | None
    colorspace: int
    color_range: int
    extradata: bytes


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """The same of PyAV's stream. `average_rate` is 0 where nobody knows."""

    codec_context: CodecFacts
    time_base: Fraction
    average_rate: Fraction


def facts_of(stream: Any) -> StreamFacts:
    """PyAV's stream as facts."""
    context = stream.codec_context
    codec = CodecFacts(
        context.name,
        int(context.width),
        int(context.height),
        context.pix_fmt,
        int(context.colorspace),
        int(context.color_range),
        bytes(context.extradata or b""),
    )
    return StreamFacts(codec, Fraction(stream.time_base), Fraction(stream.average_rate or 0))


@dataclass(frozen=True, slots=True)
class RelayedPacket:
    """A packet as its decoder reads it, with what else its camera says. Names as PyAV's.

    wall_s: the sender's wall clock at media time 0, where that is known.
    """

    data: bytes
    pts: int | None
    dts: int | None
    time_base: Fraction
    is_keyframe: bool
    wall_s: float | None

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)

    def __bytes__(self) -> bytes:
        return self.data
