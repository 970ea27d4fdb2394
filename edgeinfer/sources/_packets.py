"""A network camera's packets: connecting and demultiplexing with FFmpeg, and what its errors mean. Nothing is decoded.

Whoever decodes in hardware takes the packets from here.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import av

from edgeinfer.codecs.decoder import check_size
from edgeinfer.codecs.quiet import silence
from edgeinfer.errors import CameraError
from edgeinfer.isolation.errors import too_large

_PROTOCOLS = {"rtsp": "rtsp,rtp,udp,tcp", "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls", "http": "http,tcp"}
_PROTOCOLS["https"] = "https,http,tls,tcp"
_FORMATS = "mpjpeg,mjpeg,mpegts,flv,matroska,mov"
"""What may come over HTTP: no playlist, which could name files of ours."""


class Packets:
    """The packets of a camera's first video stream. `url` is it without credentials, for errors.

    stream: FFmpeg's, with the codec's parameters. timed: whether its time stamps are the camera's; over HTTP they are
    FFmpeg's own invention.
    """

    def __init__(
        self, url: str, full_url: str, transport: Literal["tcp", "udp"], connect_s: float, silence_s: float
    ) -> None:
        """Connects, which may take `connect_s`; later `silence_s` without a byte end it. Raises CameraError."""
        self.url = url
        self.timed = url.startswith("rtsp")
        self._silence_s = silence_s
        silence()
        with self._explained(connect_s):
            self._container = av.open(
                full_url, container_options=_settings(url, transport, connect_s), timeout=(connect_s, silence_s)
            )
        try:
            self.stream = self._first_video()
            self._packets = self._container.demux(self.stream)
        except BaseException:
            self._container.close()
            raise

    def next(self) -> Any:
        """The next packet, an `av.Packet`. Raises CameraError at the end, and where none comes in time."""
        with self._explained(self._silence_s):
            packet = next(self._packets)
        if packet.size == 0:
            raise CameraError("closed", f"{self.url}: the camera ended the stream")
        return packet

    @staticmethod
    def wall_s(packet: Any) -> float | None:
        """See `wall_clock_s`."""
        return wall_clock_s(packet)

    def close(self) -> None:
        """Takes leave of the camera."""
        self._container.close()

    def _first_video(self) -> Any:
        if not self._container.streams.video:
            raise CameraError("codec", f"{self.url}: there is no video in this stream", lasting=True)
        stream = self._container.streams.video[0]
        check_size(self.url, stream.codec_context.width, stream.codec_context.height)
        return stream

    @contextmanager
    def _explained(self, deadline_s: float) -> Iterator[None]:
        """FFmpeg's errors as ours. Their texts hold the URL with its credentials: nothing of them is passed on."""
        started = time.monotonic()
        try:
            yield
        except StopIteration:
            raise CameraError("closed", f"{self.url}: the camera ended the stream") from None
        except av.error.FFmpegError as error:
            raise explain(self.url, error, deadline_s, time.monotonic() - started) from None
        except MemoryError:
            raise too_large(self.url) from None
        except (OSError, ValueError) as error:
            raise CameraError("network", f"{self.url}: {type(error).__name__}") from None


def wall_clock_s(packet: Any) -> float | None:
    """The sender's wall clock at media time 0, where its RTCP reports have told it (AVProducerReferenceTime)."""
    if packet.pts is None or not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):
        return None
    (wall_us,) = struct.unpack_from("q", bytes(packet.get_sidedata("prft")))
    return float(wall_us / 1e6 - packet.pts * packet.time_base)


_REASONS: tuple[tuple[Callable[[av.error.FFmpegError], bool], tuple[str, str, str, bool]], ...] = (
    (
        lambda e: isinstance(e, av.error.HTTPUnauthorizedError),
        ("unauthorized", "the camera refuses us (401)", "check user and password", True),
    ),
    (
        lambda e: isinstance(e, av.error.HTTPForbiddenError),
        ("unauthorized", "the camera refuses us (403)", "check user and password", True),
    ),
    (
        lambda e: isinstance(e, av.error.HTTPNotFoundError),
        ("not_found", "no such stream (404)", "check the path", True),
    ),
    (
        lambda e: isinstance(e, av.error.DecoderNotFoundError),
        ("codec", "no decoder for this stream", "set the camera to H.264", True),
    ),
    (
        lambda e: e.errno == errno.ENOMEM,
        ("memory", "reading it takes more memory than it may have", "memory_mb allows more", False),
    ),
    (lambda e: isinstance(e, av.error.EOFError), ("closed", "the camera ended the stream", "", False)),
    (
        lambda e: e.errno == errno.ECONNREFUSED,
        ("refused", "connection refused", "is the camera on, and the port right?", False),
    ),
    (
        lambda e: e.errno in (errno.EIO, errno.EHOSTUNREACH, errno.ENETUNREACH),
        ("network", "can't be reached", "is it on, and is its name or address right?", False),
    ),
)
"""What FFmpeg's errors mean: the code, what is wrong, what helps, and whether only a person can mend it."""


def explain(url: str, error: av.error.FFmpegError, deadline_s: float, waited_s: float) -> CameraError:
    """An error of FFmpeg, after `waited_s` of `deadline_s`, as a reason with its code."""
    for applies, (code, text, hint, lasting) in _REASONS:
        if applies(error):
            return CameraError(code, f"{url}: {text}", hint, lasting)
    silent = waited_s > 0.9 * deadline_s or error.errno == errno.ETIMEDOUT
    if silent or isinstance(error, av.error.ExitError):  # that is how a deadline of ours ends a call
        return CameraError("timeout", f"{url}: no answer within {waited_s:.1f} s")
    return CameraError("network", f"{url}: {(error.strerror or type(error).__name__).lower()}")


def _settings(url: str, transport: str, connect_s: float) -> dict[str, str]:
    """FFmpeg's options. The protocols that a server can make it use are those of its own kind, and no file."""
    scheme = url.partition(":")[0].lower()
    common = {
        "protocol_whitelist": _PROTOCOLS[scheme],
        "timeout": str(int(connect_s * 1e6)),
        "fpsprobesize": "0",  # the rate is not worth waiting for
        "max_delay": "200000",
    }
    if scheme.startswith("http"):
        return {**common, "format_whitelist": _FORMATS}
    return {**common, "rtsp_transport": transport}
