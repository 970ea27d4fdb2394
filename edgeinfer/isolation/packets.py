"""A camera whose packets a process of its own demultiplexes, to be decoded here."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

from edgeinfer.codecs.facts import CodecFacts, RelayedPacket, StreamFacts
from edgeinfer.errors import CameraError
from edgeinfer.guard.limits import MAX_PACKET_BYTES, MAX_PIXELS
from edgeinfer.isolation import talk
from edgeinfer.isolation.source import MAX_SIZE, OPEN_S, IsolatedSource, Patience, Process
from edgeinfer.isolation.talk import Nonsense, whole

MAX_NAME = 32
MAX_EXTRADATA = 1 << 15
MAX_STAMP = 1 << 62
MAX_BASE = 1 << 31


class RelayedPackets(IsolatedSource):
    """The packets of a camera; the process is ended whatever it does. `url` is the camera in errors.

    stream: what a decoder has to know. timed: whether time stamps are the camera's own.
    """

    live, fps = True, 0.0

    def __init__(self, process: Process, order: dict[str, Any], what: str, url: str, patience_s: Patience) -> None:
        """Raises what the plugin's `open_packets` does, and CameraError where its process ends or hangs."""
        self.url, self.timed = url, url.startswith("rtsp")
        super().__init__(process, {**order, "packets": True}, what, patience_s, OPEN_S)

    def _open(self, order: dict[str, Any], open_s: float) -> tuple[bool, float]:
        opened = self._ask({"open": order}, open_s).get("opened")
        with self._guarded():
            self.stream = _facts(opened.get("stream") if isinstance(opened, dict) else None)
        return True, float(self.stream.average_rate)

    def next(self) -> RelayedPacket:
        """The next packet. Raises what the camera's own `next` raises, and CameraError."""
        began = time.monotonic()
        answer = self._ask({"read": True}, self._patience_s)
        with self._guarded():
            told = answer.get("packet")
            if not isinstance(told, dict):
                raise Nonsense("it was to give a packet")
            size = whole(told, "size", 1, MAX_SIZE)
            if size > MAX_PACKET_BYTES:
                self._end()
                raise CameraError("memory", f"{self._what}: a packet of {size} bytes", "is the bit rate right?")
            left_s = None if self._patience_s is None else began + self._patience_s - time.monotonic()
            data = talk.receive_bytes(self._process.peer, size, left_s)
            return RelayedPacket(
                data,
                _stamp(told, "pts"),
                _stamp(told, "dts"),
                self.stream.time_base,
                told.get("key") is True,
                _seconds(told.get("wall_s")),
            )

    @staticmethod
    def wall_s(packet: RelayedPacket) -> float | None:
        """The sender's wall clock at media time 0, where it is known."""
        return packet.wall_s


def plain_facts(facts: StreamFacts) -> dict[str, Any]:
    """As the parent reads them."""
    codec = facts.codec_context
    return {
        "codec": codec.name,
        "width": codec.width,
        "height": codec.height,
        "pix_fmt": codec.pix_fmt,
        "colorspace": codec.colorspace,
        "color_range": codec.color_range,
        "extradata": codec.extradata.hex(),
        "time_base": [facts.time_base.numerator, facts.time_base.denominator],
        "rate": [facts.average_rate.numerator, facts.average_rate.denominator],
    }


def plain_packet(packet: RelayedPacket) -> dict[str, Any]:
    """As the parent reads it; its bytes follow."""
    return {
        "size": packet.size,
        "pts": packet.pts,
        "dts": packet.dts,
        "key": packet.is_keyframe,
        "wall_s": packet.wall_s,
    }


def _facts(told: object) -> StreamFacts:
    """Raises Nonsense for what can't be a stream."""
    if not isinstance(told, dict):
        raise Nonsense("it was to be opened")
    name, pix_fmt, extradata = told.get("codec"), told.get("pix_fmt"), told.get("extradata")
    if not isinstance(name, str) or not isinstance(pix_fmt, str | None) or len(name) + len(pix_fmt or "") > MAX_NAME:
        raise Nonsense("no such codec")
    if not isinstance(extradata, str) or len(extradata) > 2 * MAX_EXTRADATA:
        raise Nonsense("no such parameters")
    width, height = (whole(told, side, 0, MAX_PIXELS) for side in ("width", "height"))
    matrix, colours = (whole(told, key, -1, 1 << 16) for key in ("colorspace", "color_range"))
    try:
        parameters = bytes.fromhex(extradata)
    except ValueError:
        raise Nonsense("no such parameters") from None
    codec = CodecFacts(name, width, height, pix_fmt, matrix, colours, parameters)
    return StreamFacts(codec, _fraction(told.get("time_base"), 1), _fraction(told.get("rate"), 0))


def _fraction(told: object, least: int) -> Fraction:
    if not isinstance(told, list) or len(told) != 2:
        raise Nonsense("no such fraction")
    parts = {"over": told[0], "under": told[1]}
    return Fraction(whole(parts, "over", least, MAX_BASE), whole(parts, "under", 1, MAX_BASE))


def _stamp(told: dict[str, Any], key: str) -> int | None:
    return None if told.get(key) is None else whole(told, key, -MAX_STAMP, MAX_STAMP)


def _seconds(told: object) -> float | None:
    if told is None:
        return None
    if not isinstance(told, int | float) or not -1e12 < told < 1e12:
        raise Nonsense("no such time")
    return float(told)
