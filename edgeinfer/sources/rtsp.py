"""Network cameras: RTSP over TCP, UDP or TLS; also MJPEG and MPEG-TS over HTTP.

Through PyAV (FFmpeg), or, where NVIDIA's hardware decoder is, RTSP through GStreamer.

Every call has a deadline. What is decoded too slowly is caught up with by leaving out all but key frames. What comes
late is stamped with when it should have come, so that the mailbox can drop it as `stale`.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import av
import numpy as np
from msgspec import Meta, Struct

from edgeinfer.errors import CameraError, StalledError
from edgeinfer.frames import pool
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.sources._clock import stamped
from edgeinfer.sources._credentials import Account, account
from edgeinfer.sources._gst_process import FROM_NVMM_TO_SINK, TO_SINK, GstSource, Recipe
from edgeinfer.sources._lateness import LATE_S, Lateness
from edgeinfer.types import Capture, Image

RECONNECT = True
READ_DEADLINE_S = 2.0
"""For a picture while packets come; for a packet it is `silence_s`."""
CATCH_UP_S = 1.0
"""So far behind, only key frames are decoded until we are there again."""
MAX_CLOCK_AGE_NS = 10_000_000_000

_PROTOCOLS = {"rtsp": "rtsp,rtp,udp,tcp", "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls", "http": "http,tcp"}
_PROTOCOLS["https"] = "https,http,tls,tcp"
_FORMATS = "mpjpeg,mjpeg,mpegts,flv,matroska,mov"
"""What may come over HTTP: no playlist, which could name files of ours."""

Seconds = Annotated[float, Meta(ge=0.1, le=300)]


class Options(Struct, frozen=True, kw_only=True):
    """`password_file` holds the password alone, and `${env:NAME}` stands for a variable in it, in the URI, in `user`
    and in `password`; what is set here goes before what the URI holds.

    `decoder: auto` is GStreamer's where NVIDIA's `nvv4l2decoder` is installed, and PyAV's elsewhere; `python` is then
    an interpreter that has PyGObject. Connecting may take `connect_s`; a connection that brings nothing for
    `silence_s` is given up. `clock: rtcp` takes a frame's time from the camera, whose clock must be set as ours is
    (NTP); only PyAV's decoder does.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    connect_s: Annotated[float, Meta(ge=0.1, le=20)] = 10.0
    silence_s: Seconds = 3.0
    clock: Literal["arrival", "rtcp"] = "arrival"
    decoder: Literal["auto", "av", "gstreamer"] = "auto"
    python: str | None = None

    def __repr__(self) -> str:
        return f"rtsp.Options(transport={self.transport!r})"


def open(uri: str, options: Options) -> NetworkCamera | GstSource:  # noqa: A001 (the plugin interface)
    """Connects. Raises CameraError with the reason's code, ConfigError, and UnavailableError without GStreamer."""
    peer = account(uri, options.user, options.password, options.password_file)
    if _through_gstreamer(uri, options):
        return GstSource(recipe(peer, options), options.python)
    return NetworkCamera(peer, options)


def isolate(uri: str, options: Options) -> bool | None:
    """See `Isolating`."""
    return None if _through_gstreamer(uri, options) else True


def _through_gstreamer(uri: str, options: Options) -> bool:
    if not uri.lower().startswith("rtsp"):
        return False
    return options.decoder == "gstreamer" or (options.decoder == "auto" and has_hardware_decoder())


def has_hardware_decoder(root: Path = Path("/")) -> bool:
    """Whether GStreamer's plugin with nvv4l2decoder is installed, where JetPack puts it."""
    return any(root.glob("usr/lib/*/gstreamer-1.0/libgstnvvideo4linux2.so"))


def recipe(peer: Account, options: Options) -> Recipe:
    """The camera as a pipeline. The address and the account are properties: a process list shows neither."""
    source = (
        f"rtspsrc name=camera protocols={options.transport} latency=100 drop-on-latency=true "
        f"tcp-timeout={int(options.silence_s * 1e6)} ! application/x-rtp,media=video ! decodebin"
    )
    properties = {"location": peer.url, "user-id": peer.user, "user-pw": peer.password}
    return Recipe(
        peer.url,
        [(("nvv4l2decoder", "nvvidconv"), f"{source} ! {FROM_NVMM_TO_SINK}"), ((), f"{source} ! {TO_SINK}")],
        {"camera": {key: value for key, value in properties.items() if value}},
        clock="arrival",
    )


class NetworkCamera:
    """See `Source`."""

    live = True

    def __init__(self, peer: Account, options: Options) -> None:
        self._url = peer.url
        self._rtcp = options.clock == "rtcp"
        self._stamps = peer.url.startswith("rtsp")  # over HTTP the time stamps are FFmpeg's own invention
        self._silence_s = options.silence_s
        av.logging.set_level(av.logging.PANIC)
        with self._explained(options.connect_s):
            self._container = av.open(
                peer.full_url,
                options=_settings(peer.url, options),
                timeout=(options.connect_s, options.silence_s),
            )
        try:
            self._stream = self._first_video()
            self.fps = float(self._stream.average_rate or 0)
            self._packets = self._container.demux(self._stream)
            self._pictures: Iterator[Any] = iter(())
        except BaseException:
            self._container.close()
            raise
        self._lateness = Lateness()
        self._catching_up = False
        self._late_s = 0.0
        self._wall_s: float | None = None
        self._last_ns = 0

    def read(self) -> Capture:
        """See `Source.read`. The deadline is `silence_s` for a packet and two seconds for a picture from packets."""
        deadline = time.monotonic() + READ_DEADLINE_S
        while True:
            for picture in self._pictures:
                return self._capture(picture)
            if time.monotonic() > deadline:
                raise StalledError(f"{self._url}: no picture can be made of what comes")
            self._pictures = iter(self._decode())

    def close(self) -> None:
        """See `Source.close`."""
        self._container.close()

    def _first_video(self) -> Any:
        if not self._container.streams.video:
            raise CameraError("codec", f"{self._url}: there is no video in this stream", lasting=True)
        stream = self._container.streams.video[0]
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.thread_type = "SLICE"  # threads per frame would hold frames back
        return stream

    def _decode(self) -> list[Any]:
        with self._explained(self._silence_s):
            packet = next(self._packets)
        if packet.size == 0:
            raise CameraError("closed", f"{self._url}: the camera ended the stream")
        self._mind_lateness(packet)
        if self._rtcp:
            self._wall_s = _wall_clock_s(packet)
        try:
            return list(self._stream.codec_context.decode(packet))
        except av.error.InvalidDataError:
            return []  # what is damaged is left out by the decoder until the next key frame
        except av.error.FFmpegError as error:
            text = f"{self._url}: can't be decoded: {error.strerror}"
            raise CameraError("codec", text, lasting=True) from None

    def _mind_lateness(self, packet: Any) -> None:
        """Decodes key frames only while we are far behind; what is left out is caught up with."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or not self._stamps:
            return
        late_s = self._lateness.late_s(float(stamp * packet.time_base), time.monotonic())
        if late_s > CATCH_UP_S:
            self._catching_up = True
        elif late_s < LATE_S and packet.is_keyframe:
            self._catching_up = False
        self._stream.codec_context.skip_frame = "NONKEY" if self._catching_up else "DEFAULT"
        self._late_s = late_s

    def _capture(self, picture: Any) -> Capture:
        self._check_size(picture.width, picture.height)
        if picture.is_corrupt:
            raise UnreadableItem(f"{self._url}: a damaged picture")
        image = _image(picture)
        if self._wall_s is not None and picture.time is not None:
            age_ns = time.time_ns() - int((self._wall_s + picture.time) * 1e9)
            if 0 <= age_ns < MAX_CLOCK_AGE_NS:
                return stamped(image, "rtcp", age_ns=age_ns)
        since_ns = max(0, time.monotonic_ns() - self._last_ns)
        capture = stamped(
            image, "arrival", age_ns=min(int(self._late_s * 1e9), since_ns)
        )  # time does not run backwards
        self._last_ns = capture.t_mono_ns
        return capture

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise CameraError("codec", f"{self._url}: {width} × {height} pixels are too many", lasting=True)

    @contextmanager
    def _explained(self, deadline_s: float) -> Iterator[None]:
        """FFmpeg's errors as ours. Their texts hold the URL with its credentials: nothing of them is passed on."""
        started = time.monotonic()
        try:
            yield
        except StopIteration:
            raise CameraError("closed", f"{self._url}: the camera ended the stream") from None
        except av.error.FFmpegError as error:
            raise explain(self._url, error, deadline_s, time.monotonic() - started) from None
        except (OSError, ValueError) as error:
            raise CameraError("network", f"{self._url}: {type(error).__name__}") from None


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


def _settings(url: str, options: Options) -> dict[str, str]:
    """FFmpeg's options. The protocols that a server can make it use are those of its own kind, and no file."""
    scheme = url.partition(":")[0].lower()
    common = {
        "protocol_whitelist": _PROTOCOLS[scheme],
        "timeout": str(int(options.connect_s * 1e6)),
        "fpsprobesize": "0",  # the rate is not worth waiting for
        "max_delay": "200000",
    }
    if scheme.startswith("http"):
        return {**common, "format_whitelist": _FORMATS}
    return {**common, "rtsp_transport": options.transport}


def _wall_clock_s(packet: Any) -> float | None:
    """The sender's wall clock at media time 0, where its RTCP reports have told it (AVProducerReferenceTime)."""
    if packet.pts is None or not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):
        return None
    (wall_us,) = struct.unpack_from("q", bytes(packet.get_sidedata("prft")))
    return float(wall_us / 1e6 - packet.pts * packet.time_base)


def _image(picture: Any) -> Image:
    """The picture in BGR, copied once, into memory that is used again."""
    plane = picture.reformat(format="bgr24").planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: picture.height, : picture.width * 3]
    image = pool.empty(picture.height, picture.width)
    np.copyto(image.reshape(picture.height, -1), rows)
    return image
