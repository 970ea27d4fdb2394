"""Network cameras: RTSP over TCP, UDP or TLS; also MJPEG and MPEG-TS over HTTP.

Through PyAV (FFmpeg), or, where NVIDIA's hardware decoder is, RTSP through GStreamer.

Every call has a deadline. What is decoded too slowly is caught up with by leaving out all but key frames. What comes
late is stamped with when it should have come, so that the mailbox can drop it as `stale`.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from edgeinfer.codecs.bitstream import Bitstream
from edgeinfer.codecs.choice import Wanted, open_decoder, wants_nvdec
from edgeinfer.codecs.decoder import Decoded, VideoDecoder
from edgeinfer.codecs.facts import RelayedPacket, StreamFacts, facts_of
from edgeinfer.errors import StalledError, TemporaryError, UnavailableError
from edgeinfer.interfaces import NoRoom
from edgeinfer.isolation import inside
from edgeinfer.recipe import BINDINGS
from edgeinfer.sources._clock import stamped
from edgeinfer.sources._credentials import Account, account
from edgeinfer.sources._gst_process import FROM_NVMM_TO_SINK, TO_SINK, GstSource, Recipe, find_python, start
from edgeinfer.sources._lateness import LATE_S, Lateness
from edgeinfer.sources._packets import Packets
from edgeinfer.types import Capture, DecoderChoice, Start

log = logging.getLogger(__name__)

RECONNECT = True
READ_DEADLINE_S = 2.0
"""For a picture while packets come; for a packet it is `silence_s`."""
CATCH_UP_S = 1.0
"""So far behind, only key frames are decoded until we are there again."""
MAX_CLOCK_AGE_NS = 10_000_000_000

PLACE = "usr/lib/*/gstreamer-1.0"
PLUGINS = {
    "playback": "gstreamer1.0-plugins-base",
    "rtsp": "gstreamer1.0-plugins-good",
    "rtp": "gstreamer1.0-plugins-good",
    "videoparsersbad": "gstreamer1.0-plugins-bad",
}
"""What decodebin, rtspsrc, the payloads and h264parse are in, without which there is nothing to decode."""

Seconds = Annotated[float, Meta(ge=0.1, le=300)]


class Options(Struct, frozen=True, kw_only=True):
    """`password_file` holds the password alone, and `${env:NAME}` stands for a variable in it, in the URI, in `user`
    and in `password`; what is set here goes before what the URI holds.

    `decoder: auto` is GStreamer's where NVIDIA's `nvv4l2decoder` is installed and a Python can use it (python3-gi,
    gir1.2-gstreamer-1.0; `python` names one); NVDEC where PyNvVideoCodec is installed (`edgeinfer[nvdec]`) and the GPU
    decodes the stream, beside the network; and FFmpeg on the CPU elsewhere. `av` is FFmpeg in a process of its own,
    `nvdec` and `gstreamer` nothing else. Connecting may take `connect_s`; a connection that brings nothing for
    `silence_s` is given up. `clock: rtcp` takes a frame's time from the camera, whose clock must be set as ours is
    (NTP); GStreamer's decoder doesn't.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    connect_s: Annotated[float, Meta(ge=0.1, le=20)] = 10.0
    silence_s: Seconds = 3.0
    clock: Literal["arrival", "rtcp"] = "arrival"
    decoder: Literal["auto", "av", "nvdec", "gstreamer"] = "auto"
    python: str | None = None

    def __repr__(self) -> str:
        return f"rtsp.Options(transport={self.transport!r})"


def open(uri: str, options: Options) -> NetworkCamera | GstSource:  # noqa: A001 (the plugin interface)
    """Connects. Raises CameraError with the reason's code, ConfigError, and UnavailableError without GStreamer."""
    peer = account(uri, options.user, options.password, options.password_file)
    if _through_gstreamer(uri, options):
        return GstSource(recipe(peer, options), options.python)
    packets = _connected(peer, options)
    try:
        wanted = "auto" if options.decoder == "gstreamer" else options.decoder
        return NetworkCamera(packets, open_decoder(packets.stream, peer.url, wanted, live=True), options)
    except BaseException:
        packets.close()
        raise


def _connected(peer: Account, options: Options) -> Packets:
    return Packets(peer.url, peer.full_url, options.transport, options.connect_s, options.silence_s)


def scales(uri: str, options: Options) -> bool:
    """See `Scaling`. NVIDIA's elements scale on their way out of the decoder; elsewhere pictures stay as they are."""
    return _through_gstreamer(uri, options) and has_hardware_decoder()


def open_fitted(uri: str, options: Options, fit: tuple[int, int]) -> GstSource:
    """See `Scaling`."""
    peer = account(uri, options.user, options.password, options.password_file)
    return GstSource(replace(recipe(peer, options), fit=fit), options.python)


def isolate(uri: str, options: Options) -> bool | None:
    """See `Isolating`."""
    return None if _through_gstreamer(uri, options) else True


def relays(uri: str, options: Options) -> bool:
    """See `Relaying`."""
    if options.decoder == "gstreamer" or _through_gstreamer(uri, options):
        return False
    return wants_nvdec(options.decoder)


def open_packets(uri: str, options: Options) -> AnnexB:
    """See `Relaying`."""
    return AnnexB(_connected(account(uri, options.user, options.password, options.password_file), options))


def open_relayed(packets: Any, options: Options) -> NetworkCamera:
    """See `Relaying`."""
    wanted: Wanted = "nvdec" if options.decoder == "nvdec" else "auto"
    decoder = open_decoder(packets.stream, packets.url, wanted, live=True, elsewhere=True)
    return NetworkCamera(packets, decoder, options)


def _through_gstreamer(uri: str, options: Options) -> bool:
    if not uri.lower().startswith("rtsp"):
        return False
    if options.decoder != "auto":
        return options.decoder == "gstreamer"
    # In a process that was made for PyAV, GStreamer may have come since, but is not for it.
    return not inside.serving() and has_hardware_decoder() and _can_use_it(options.python)


@functools.lru_cache(maxsize=8)
def _can_use_it(python: str | None) -> bool:
    """Whether the hardware decoder can be used, by a Python and with the plugins around it.

    One answer for the life of the process, and one warning.
    """
    if python is not None:
        return True
    packages = missing_packages()
    try:
        find_python()
    except UnavailableError:
        packages = [*BINDINGS.split(), *packages]
    except TemporaryError as error:  # it will be tried again when the source is opened
        log.debug("%s", error)
    if packages:
        text = "rtsp: NVIDIA's decoder is installed, but not what it takes to use it: apt install %s, then restart"
        log.warning(text, " ".join(packages))
    return not packages


def starting(uri: str, options: Options) -> Start | None:
    """See `SlowStarting`."""
    return start() if _through_gstreamer(uri, options) else None


def has_hardware_decoder(root: Path = Path("/")) -> bool:
    """Whether GStreamer's plugin with nvv4l2decoder is installed, where JetPack puts it."""
    return any(root.glob(f"{PLACE}/libgstnvvideo4linux2.so"))


def missing_packages(root: Path = Path("/")) -> list[str]:
    """Debian's packages of the GStreamer plugins that a camera's stream passes, as far as they are not installed."""
    missing = {package for name, package in PLUGINS.items() if not any(root.glob(f"{PLACE}/libgst{name}.so"))}
    return sorted(missing)


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


class AnnexB:
    """See `PacketSource`: packets with start codes, as NVDEC reads them."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self.facts: StreamFacts = facts_of(packets.stream)
        self._bitstream = Bitstream(packets.stream)

    def next(self) -> RelayedPacket:
        """See `PacketSource.next`."""
        while True:
            packet = self._packets.next()
            stamps, key, wall_s = (packet.pts, packet.dts), packet.is_keyframe, self._packets.wall_s(packet)
            data = b"".join(self._bitstream.units(packet))  # which leaves nothing in the packet
            if data:
                return RelayedPacket(data, *stamps, self.facts.time_base, key, wall_s)

    def close(self) -> None:
        """See `PacketSource.close`."""
        self._packets.close()


class NetworkCamera:
    """See `Source`. What is decoded too slowly is caught up with by leaving out all but key frames."""

    live = True

    def __init__(self, packets: Any, decoder: VideoDecoder, options: Options) -> None:
        """Of `Packets`, or of what comes like them from another process. It closes both."""
        self._packets, self._decoder = packets, decoder
        self.fps = float(self._packets.stream.average_rate or 0)
        self._rtcp = options.clock == "rtcp"
        self._pictures: Iterator[Decoded] = iter(())
        self._lateness = Lateness()
        self._catching_up = False
        self._late_s = 0.0
        self._wall_s: float | None = None
        self._last_ns = 0

    @property
    def decoder(self) -> DecoderChoice:
        """See `Decoding`."""
        return self._decoder.choice

    def read(self) -> Capture:
        """See `Source.read`. The deadline is `silence_s` for a packet and two seconds for a picture from packets."""
        deadline = time.monotonic() + READ_DEADLINE_S
        while True:
            if not self._decoder.has_room:
                raise NoRoom
            for decoded in self._pictures:
                return self._capture(decoded)
            if time.monotonic() > deadline:
                raise StalledError(f"{self._packets.url}: no picture can be made of what comes")
            packet = self._packets.next()
            self._mind_lateness(packet)
            if self._rtcp:
                self._wall_s = self._packets.wall_s(packet)
            self._pictures = self._decoder.decode(packet, self._catching_up)

    def close(self) -> None:
        """See `Source.close`."""
        self._decoder.close()
        self._packets.close()

    def _mind_lateness(self, packet: Any) -> None:
        """Decides whether we are so far behind that only key frames are decoded."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or not self._packets.timed:
            return
        self._late_s = self._lateness.late_s(float(stamp * packet.time_base), time.monotonic())
        if self._late_s > CATCH_UP_S:
            self._catching_up = True
        elif self._late_s < LATE_S and packet.is_keyframe:
            self._catching_up = False

    def _capture(self, decoded: Decoded) -> Capture:
        if self._wall_s is not None and decoded.time_s is not None:
            age_ns = time.time_ns() - int((self._wall_s + decoded.time_s) * 1e9)
            if 0 <= age_ns < MAX_CLOCK_AGE_NS:
                return stamped(decoded.picture, "rtcp", age_ns=age_ns)
        since_ns = max(0, time.monotonic_ns() - self._last_ns)
        age_ns = min(int(self._late_s * 1e9), since_ns)  # time does not run backwards
        capture = stamped(decoded.picture, "arrival", age_ns=age_ns)
        self._last_ns = capture.t_mono_ns
        return capture
