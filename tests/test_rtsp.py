"""Network cameras against a real RTSP server, whole and damaged, and through a proxy that misbehaves."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.codecs import decoder as codec
from edgeinfer.errors import CameraError, ConfigError, EdgeinferError, StalledError
from edgeinfer.flow.capture import CaptureThread, Deadlines
from edgeinfer.interfaces import Source, UnreadableItem
from edgeinfer.sources import rtsp
from edgeinfer.sources._credentials import account, expand
from edgeinfer.sources._lateness import PATIENCE_S, Lateness
from edgeinfer.sources._packets import explain
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from edgeinfer.types import Capture
from tests.capturing import Desk, capturing
from tests.conftest import CAMERA_HEIGHT as HEIGHT
from tests.conftest import CAMERA_WIDTH as WIDTH
from tests.conftest import Cli, need_gst, write_camera_clip
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.rtsp_server import RtspServer

Start = Callable[..., "subprocess.Popen[str]"]
QUICK = rtsp.Options(connect_s=2, silence_s=1.5, decoder="av")
LIMITS = Deadlines(stall=0.7, timeout=2, first=8, grace=4)


@pytest.fixture
def clips(server: RtspServer) -> Path:
    return server.folder


@pytest.fixture
def server(rtsp_server: RtspServer) -> Iterator[RtspServer]:
    yield rtsp_server
    rtsp_server.thaw()


@pytest.fixture
def own_server(clips: Path) -> Iterator[RtspServer]:
    """One that may be killed."""
    server = RtspServer(clips)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: RtspServer) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.port) as proxy:
        yield proxy


def read(camera: Source) -> Capture:
    capture = camera.read()
    assert capture is not None
    return capture


def failure(uri: str, options: rtsp.Options = QUICK) -> CameraError:
    with pytest.raises(CameraError) as caught:
        rtsp.open(uri, options)
    return caught.value


@pytest.mark.slow
def test_the_pictures_are_those_that_were_sent(server: RtspServer) -> None:
    camera = rtsp.open(server.url(), QUICK)
    try:
        captures = [read(camera) for _ in range(30)]
    finally:
        camera.close()
    sent = Demo(DemoOptions(width=WIDTH, height=HEIGHT, realtime=False))
    assert camera.fps == pytest.approx(30)
    for index, capture in enumerate(captures[:5]):
        assert capture.image.shape == (HEIGHT, WIDTH, 3)
        assert cv2.PSNR(capture.image, sent.render(index)) > 25
    stamps = [capture.t_mono_ns for capture in captures]
    assert stamps == sorted(stamps)
    assert {capture.clock for capture in captures} == {"arrival"}


@pytest.mark.slow
def test_the_cameras_own_clock_is_used_where_it_is_told_and_asked_for(server: RtspServer) -> None:
    camera = rtsp.open(server.url(), rtsp.Options(clock="rtcp", decoder="av"))
    captures = next([capture] for _ in range(100) if (capture := read(camera)).clock == "rtcp")
    captures += [read(camera) for _ in range(15)]
    camera.close()
    assert [capture.clock for capture in captures] == ["rtcp"] * 16, "known after the first report"
    steps = np.diff([capture.t_ns for capture in captures]) * 30 / 1e9
    assert steps == pytest.approx(np.maximum(1, np.round(steps)), abs=0.1), "RTP time stamps are exact"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "code", "lasting"),
    [
        (b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm=x\r\n\r\n", "unauthorized", True),
        (b"RTSP/1.0 403 Forbidden\r\nCSeq: 1\r\n\r\n", "unauthorized", True),
        (b"RTSP/1.0 503 Service Unavailable\r\nCSeq: 1\r\n\r\n", "network", False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "network", False),
        (b"\0" * 5000, "network", False),
        (b"", "network", False),
    ],
)
def test_what_a_camera_may_answer(answer: bytes, code: str, lasting: bool) -> None:
    with faulty_proxy(0, answer) as proxy:
        options = rtsp.Options(connect_s=0.7, silence_s=0.7, decoder="av")
        error = failure(f"rtsp://admin:hunter2@127.0.0.1:{proxy.port}/x", options)
    assert (error.code, error.lasting) in {(code, lasting), ("closed", False), ("timeout", False)}
    assert (error.code == "unauthorized") == lasting
    assert "hunter2" not in f"{error!r} {error}"
    assert "admin" not in f"{error!r} {error}"


@pytest.mark.parametrize(
    ("kind", "number", "waited_s", "code", "lasting"),
    [
        (av.error.HTTPUnauthorizedError, 1, 0.1, "unauthorized", True),
        (av.error.HTTPForbiddenError, 1, 0.1, "unauthorized", True),
        (av.error.HTTPNotFoundError, 1, 0.1, "not_found", True),
        (av.error.DecoderNotFoundError, 1, 0.1, "codec", True),
        (av.error.EOFError, 1, 0.1, "closed", False),
        (av.error.FFmpegError, errno.ECONNREFUSED, 0.1, "refused", False),
        (av.error.FFmpegError, errno.EIO, 0.1, "network", False),
        (av.error.FFmpegError, errno.EHOSTUNREACH, 9.9, "network", False),
        (av.error.FFmpegError, errno.ENETUNREACH, 0.1, "network", False),
        (av.error.FFmpegError, errno.ETIMEDOUT, 0.1, "timeout", False),
        (av.error.ExitError, 1, 0.1, "timeout", False),
        (av.error.FFmpegError, errno.EPERM, 9.5, "timeout", False),
        (av.error.FFmpegError, errno.EPERM, 0.1, "network", False),
    ],
)
def test_what_ffmpegs_errors_mean(
    kind: type[av.error.FFmpegError], number: int, waited_s: float, code: str, lasting: bool
) -> None:
    error = explain("rtsp://cam/x", kind(number, "Broken"), 10, waited_s)
    assert (error.code, error.lasting) == (code, lasting)
    assert error.message.startswith("rtsp://cam/x: ")


def test_ffmpeg_is_told_what_it_may_open_and_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    def refuse(url: str, **settings: Any) -> None:
        told.append((url, settings))
        raise av.error.EOFError(1, "x")

    monkeypatch.setattr(av, "open", refuse)
    options = rtsp.Options(transport="udp", connect_s=4, silence_s=2, decoder="av")
    for url in ("rtsp://u:p@cam/x", "RTSPS://cam/x", "http://cam/x", "https://cam/x"):
        assert failure(url, options).code == "closed"
    (first, settings), (_, secure), (_, web), (_, secure_web) = told
    assert first == "rtsp://u:p@cam/x"
    assert settings["timeout"] == (4, 2)
    assert settings["container_options"]["timeout"] == "4000000"
    assert settings["container_options"]["rtsp_transport"] == "udp"
    assert settings["container_options"]["protocol_whitelist"] == "rtsp,rtp,udp,tcp"
    assert secure["container_options"]["protocol_whitelist"].split(",")[-1] == "tls"
    assert web["container_options"]["protocol_whitelist"] == "http,tcp"
    assert secure_web["container_options"]["protocol_whitelist"] == "https,http,tls,tcp"
    for listed in (web, secure_web):
        assert "rtsp_transport" not in listed["container_options"]
        assert not {"hls", "concat", "dash"} & set(listed["container_options"]["format_whitelist"].split(","))


@pytest.mark.parametrize("decoder", ["auto", "av", "gstreamer"])
@pytest.mark.parametrize("hardware", [True, False])
def test_which_decoder_is_taken(monkeypatch: pytest.MonkeyPatch, decoder: Any, hardware: bool) -> None:
    monkeypatch.setattr(rtsp, "GstSource", lambda recipe, python: "gstreamer")
    monkeypatch.setattr(rtsp, "Packets", lambda *_: SimpleNamespace(stream=None))
    monkeypatch.setattr(rtsp, "open_decoder", lambda *_, **__: None)
    monkeypatch.setattr(rtsp, "NetworkCamera", lambda packets, decoder, options: "av")
    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: hardware)
    taken: Any = rtsp.open("rtsp://cam/x", rtsp.Options(decoder=decoder))
    assert taken == (decoder if decoder != "auto" else "gstreamer" if hardware else "av")
    web: Any = rtsp.open("http://cam/x", rtsp.Options(decoder=decoder))
    assert web == "av", "MJPEG over HTTP is nothing for rtspsrc"


def test_the_account_goes_to_gstreamer_as_properties() -> None:
    options = rtsp.Options(transport="udp", silence_s=2)
    recipe = rtsp.recipe(account("rtsp://me:pw@cam/x", None, None, None), options)
    assert recipe.properties == {"camera": {"location": "rtsp://cam/x", "user-id": "me", "user-pw": "pw"}}
    assert recipe.clock == "arrival", "its own clock is of when it decoded"
    for _, text in recipe.pipelines:
        assert "protocols=udp " in text
        assert "tcp-timeout=2000000 " in text
        assert "pw" not in text
    assert rtsp.recipe(account("rtsp://cam/x", None, None, None), options).properties == {
        "camera": {"location": "rtsp://cam/x"}
    }


def test_a_stream_that_is_not_there(server: RtspServer) -> None:
    error = failure(server.url("none.mp4"))
    assert (error.code, error.lasting) == ("not_found", True)


def test_a_port_where_nobody_listens_and_a_name_that_nobody_has() -> None:
    assert failure("rtsp://127.0.0.1:1/x").code == "refused"
    assert failure("rtsp://camera.invalid/x").code == "network"


@pytest.mark.slow
def test_a_server_that_is_frozen_from_the_start(server: RtspServer) -> None:
    server.freeze()
    started = time.monotonic()
    assert failure(server.url()).code == "timeout"
    assert time.monotonic() - started < 10


def test_a_codec_that_nobody_can_decode_in_time_is_told(clips: Path, server: RtspServer) -> None:
    with av.open(str(clips / "sound.aac"), "w", format="adts") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 48000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for _ in range(100):
            container.mux(stream.encode(frame))
    error = failure(server.url("sound.aac"))
    assert (error.code, error.lasting) == ("codec", True)
    assert "no video" in str(error)


def test_hevc(clips: Path, server: RtspServer) -> None:
    write_camera_clip(clips / "hevc.mp4", "libx265", 30)
    camera = rtsp.open(server.url("hevc.mp4"), QUICK)
    assert read(camera).image.shape == (HEIGHT, WIDTH, 3)
    camera.close()


@pytest.mark.slow
def test_too_many_pixels(server: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    error = failure(server.url())
    assert (error.code, error.lasting) == ("codec", True)


@pytest.mark.parametrize("uri", ["rtsp://", "rtsp:///x", "rtsp:x", "rtsp://[::1/x", "rtsp://h:99999/x", "rtsp://h/a b"])
def test_what_is_no_url(uri: str) -> None:
    with pytest.raises(ConfigError):
        rtsp.open(uri, QUICK)


def test_a_header_can_not_be_slipped_in() -> None:
    with pytest.raises(ConfigError, match="no control characters"):
        rtsp.open("rtsp://127.0.0.1/x\r\nEvil: 1", QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("playlist", [b"#EXTM3U\n#EXTINF:1,\nfile://{}\n", b"ffconcat version 1.0\nfile '{}'\n"])
def test_a_server_can_not_make_us_read_a_file(tmp_path: Path, clips: Path, playlist: bytes) -> None:
    (tmp_path / "x.m3u8").write_bytes(playlist.replace(b"{}", str(clips / "clip.mp4").encode()))
    with web_server(tmp_path) as port:
        error = failure(f"http://127.0.0.1:{port}/x.m3u8")
    assert error.code in {"network", "codec"}


class web_server:  # noqa: N801 (used like a function)
    """Serves a folder over HTTP."""

    def __init__(self, folder: Path) -> None:
        handler = partial(QuietHandler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server.server_address[1]

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        pass

    def do_GET(self) -> None:
        if self.path != "/mjpeg":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        camera = Demo(DemoOptions(width=WIDTH, height=HEIGHT, realtime=False))
        for index in range(1000):
            jpeg = cv2.imencode(".jpg", camera.render(index))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.02)


@pytest.mark.slow
def test_mjpeg_over_http(tmp_path: Path) -> None:
    with web_server(tmp_path) as port:
        camera = rtsp.open(f"http://127.0.0.1:{port}/mjpeg", QUICK)
        captures = [read(camera) for _ in range(10)]
        camera.close()
    assert captures[-1].image.shape == (HEIGHT, WIDTH, 3)
    assert time.monotonic_ns() - captures[-1].t_mono_ns < 60e9


# Against a stream of our own making, on a virtual clock


class Plane(bytes):
    line_size = 8


class Picture:
    """A decoded picture, two by two, whose rows are padded to eight bytes."""

    width = height = 2
    rotation = 0
    colorspace, color_range = 2, 0
    planes = (Plane([1, 2, 3, 4, 5, 6, 99, 99, 7, 8, 9, 10, 11, 12, 99, 99]),)

    def __init__(self, is_corrupt: bool = False, time: float | None = None) -> None:
        self.is_corrupt, self.pts = is_corrupt, time
        self.format = SimpleNamespace(name="rgb24")

    def reformat(self, format: str, src_colorspace: int, src_color_range: int) -> Picture:  # noqa: A002 (PyAV's name)
        assert format == "bgr24"
        return self


class Packet:
    """`at_s` is its time stamp; `gives` what the decoder makes of it."""

    size, time_base = 100, 1.0

    def __init__(self, at_s: float, *gives: Any, key: bool = False) -> None:
        self.dts = self.pts = at_s
        self.gives, self.is_keyframe = gives, key


class Stream:
    """Everything that PyAV's container, stream and codec context are asked for."""

    average_rate = 25
    time_base = 1.0
    width = height = 2

    def __init__(self, *packets: Any) -> None:
        self.packets = list(packets)
        self.closed = 0
        self.skipped: list[str] = []
        self.streams = self.codec_context = self
        self.video = [self]
        self.skip_frame = ""

    def demux(self, stream: Stream) -> Iterator[Packet]:
        for packet in self.packets:
            if isinstance(packet, Exception):
                raise packet
            yield packet

    def decode(self, packet: Packet) -> list[Any]:
        self.skipped.append(self.skip_frame)
        if packet.gives and isinstance(packet.gives[0], Exception):
            raise packet.gives[0]
        return list(packet.gives)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock in seconds."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "monotonic_ns", lambda: int(clock[0] * 1e9))
    return clock


def camera_of(
    monkeypatch: pytest.MonkeyPatch, *packets: Any, url: str = "rtsp://cam/x"
) -> tuple[rtsp.NetworkCamera, Stream]:
    stream = Stream(*packets)
    monkeypatch.setattr(av, "open", lambda *_, **__: stream)
    camera = rtsp.open(url, QUICK)
    assert isinstance(camera, rtsp.NetworkCamera)
    return camera, stream


def test_a_picture_is_copied_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    camera, stream = camera_of(monkeypatch, Packet(0), Packet(0, Picture(), Picture()), Packet(1, Picture()))
    for _ in range(3):
        assert camera.read().image.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert camera.fps == 25
    camera.close()
    assert stream.closed == 1


@pytest.mark.parametrize(("url", "minds"), [("rtsp://cam/x", True), ("http://cam/x", False)])
def test_what_is_far_behind_is_caught_up_with_by_key_frames(
    monkeypatch: pytest.MonkeyPatch, now: list[float], url: str, minds: bool
) -> None:
    """Until it is there again, and then from a key frame on: what comes before refers to what was left out."""
    packets = [Packet(at, Picture(), key=key) for at, key in ((0, True), (1, False), (2, True), (5, False), (6, True))]
    camera, stream = camera_of(monkeypatch, *packets, url=url)
    ages = []
    for at in (1000, 1002.5, 1003.5, 1005, 1006):
        now[0] = at
        capture = camera.read()
        ages.append(round(at - capture.t_mono_ns / 1e9, 1))
    behind = ["NONKEY" if minds else "DEFAULT"] * 3
    assert stream.skipped == ["DEFAULT", *behind, "DEFAULT"]
    assert ages == ([0, 1.5, 1.5, 0, 0] if minds else [0] * 5), "late pictures are stamped with when they were due"


def test_time_does_not_run_backwards_however_late_a_picture_is(
    monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> None:
    camera, _ = camera_of(monkeypatch, *[Packet(at, Picture()) for at in (0, 0.1, 0.05, 0.2)])
    stamps = []
    for at in (1000, 1003, 1003.1, 1003.2):
        now[0] = at
        stamps.append(camera.read().t_mono_ns)
    assert stamps == sorted(stamps)
    assert [round(stamp / 1e9 - 1000, 1) for stamp in stamps] == [0, 0.1, 0.1, 0.2]


class Reporting(Packet):
    """A packet with the sender's wall clock, as RTCP told it: it was sent at `wall_s`."""

    def __init__(self, at_s: float, *gives: Any, wall_s: float) -> None:
        super().__init__(at_s, *gives)
        self.wall_s = wall_s

    def has_sidedata(self, kind: str) -> bool:
        return kind == "prft"

    def get_sidedata(self, kind: str) -> bytes:
        return struct.pack("q", int(self.wall_s * 1e6)) + bytes(8)


@pytest.mark.parametrize(("age_s", "clock"), [(2, "rtcp"), (9.5, "rtcp"), (-1, "arrival"), (11, "arrival")])
@pytest.mark.parametrize("asked", [True, False])
def test_the_cameras_clock_is_believed_where_it_can_be_true(
    monkeypatch: pytest.MonkeyPatch, age_s: float, clock: str, asked: bool
) -> None:
    packet = Reporting(7.0, Picture(time=6.5), wall_s=time.time() - age_s + 0.5)
    monkeypatch.setattr(av, "open", lambda *_, **__: Stream(packet))
    camera = rtsp.open("rtsp://cam/x", rtsp.Options(decoder="av", clock="rtcp" if asked else "arrival"))
    capture = read(camera)
    assert capture.clock == (clock if asked else "arrival")
    if capture.clock == "rtcp":
        assert (time.time_ns() - capture.t_ns) / 1e9 == pytest.approx(age_s, abs=0.4)


def test_a_damaged_picture_is_told_and_the_next_one_may_be_good(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = av.error.InvalidDataError(1, "x")
    camera, _ = camera_of(monkeypatch, Packet(0, Picture(is_corrupt=True)), Packet(1, damaged), Packet(2, Picture()))
    with pytest.raises(UnreadableItem, match="damaged"):
        camera.read()
    assert camera.read() is not None


class Ending(Packet):
    size = 0


@pytest.mark.parametrize(
    ("last", "code", "lasting"),
    [
        (Ending(0), "closed", False),
        (None, "closed", False),
        (av.error.FFmpegError(errno.ECONNREFUSED, "x"), "refused", False),
        (OSError("x"), "network", False),
        (ValueError("x"), "network", False),
        (Packet(0, av.error.FFmpegError(1, "x")), "codec", True),
    ],
)
def test_how_a_stream_may_end(monkeypatch: pytest.MonkeyPatch, last: Any, code: str, lasting: bool) -> None:
    camera, _ = camera_of(monkeypatch, *([] if last is None else [last, Packet(1, Picture())]))
    with pytest.raises(CameraError) as caught:
        camera.read()
    assert (caught.value.code, caught.value.lasting) == (code, lasting)


def test_packets_without_a_picture_are_a_stall_in_the_end(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    class Slow(Packet):
        @property
        def gives(self) -> tuple[Any, ...]:
            now[0] += 0.5
            return ()

        @gives.setter
        def gives(self, _: object) -> None:
            pass

    camera, stream = camera_of(monkeypatch, *[Slow(number) for number in range(100)])
    with pytest.raises(StalledError, match="no picture can be made"):
        camera.read()
    assert 1002 <= now[0] < 1004
    assert camera._packets.stream is stream


@pytest.mark.parametrize("size", [(8193, 8192), (1, 8192 * 8192 + 1)])
def test_a_stream_that_is_too_large_is_closed(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    stream = Stream()
    stream.width, stream.height = size
    monkeypatch.setattr(av, "open", lambda *_, **__: stream)
    assert failure("rtsp://cam/x").code == "codec"
    assert stream.closed == 1
    stream.video = []
    assert "no video" in str(failure("rtsp://cam/x"))
    assert stream.closed == 2


# The ladder with a real peer


def watching(desk: Desk, uri: str) -> AbstractContextManager[CaptureThread]:
    return capturing(desk, lambda: rtsp.open(uri, QUICK), LIMITS, reconnect=True)


@pytest.mark.slow
def test_a_frozen_server_stalls_the_source_and_a_thaw_brings_it_back(server: RtspServer) -> None:
    desk = Desk()
    with watching(desk, server.url()):
        desk.until(desk.got(10), "frames")
        server.freeze()
        desk.until(desk.state_is("stalled"), "stalled")
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        assert desk.code("reconnecting") == "timeout"
        server.thaw()
        desk.until(desk.got(10), "frames after the thaw")
        assert desk.ledger.state[0] == "running"
    ids = [frame.frame_id for frame in desk.frames]
    assert ids == sorted(set(ids))


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(own_server: RtspServer) -> None:
    desk = Desk()
    with watching(desk, own_server.url()):
        desk.until(desk.got(10), "frames")
        own_server.kill()
        desk.until(lambda: ("reconnecting", "refused") in desk.states, "being refused")
        own_server.start()
        desk.until(desk.got(10), "frames of the new server")


@pytest.mark.slow
def test_a_reset_connection(proxy: FaultyProxy) -> None:
    desk = Desk()
    with watching(desk, url(proxy)):
        for _ in range(3):
            desk.until(desk.got(10), "frames")
            proxy.reset()
            desk.until(desk.state_is("reconnecting"), "reconnecting")
        desk.until(desk.got(10), "frames")
    assert desk.books.reconnects >= 3


@pytest.mark.slow
def test_a_connection_that_says_nothing_any_more(proxy: FaultyProxy) -> None:
    desk = Desk()
    with watching(desk, url(proxy)):
        desk.until(desk.got(10), "frames")
        proxy.stalled = True
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        proxy.stalled = False
        desk.until(desk.got(10), "frames")


@pytest.mark.slow
def test_a_connection_of_which_one_half_is_closed(proxy: FaultyProxy) -> None:
    desk = Desk()
    with watching(desk, url(proxy)):
        desk.until(desk.got(10), "frames")
        proxy.half_closed = True
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        proxy.half_closed = False
        desk.until(desk.got(10), "frames")


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 50, 400, 700, 1000, 3000, 20_000])
def test_an_answer_that_is_cut_anywhere(proxy: FaultyProxy, after: int) -> None:
    proxy.truncate_after = after
    desk = Desk()
    with watching(desk, url(proxy)):
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        proxy.truncate_after = None
        desk.until(desk.got(5), "frames of a whole answer")


@pytest.mark.slow
def test_a_line_that_is_too_thin_does_not_build_up_delay(proxy: FaultyProxy) -> None:
    desk = Desk()
    with watching(desk, url(proxy)):
        desk.until(desk.got(10), "frames")
        proxy.bytes_per_s = 2000
        desk.until(lambda: desk.state_is("stalled", "reconnecting")() or "stale" in desk.books.dropped, "an effect")
        proxy.bytes_per_s = None
        desk.until(desk.got(30), "frames")
    assert all(frame.capture.t_mono_ns for frame in desk.frames)


@pytest.mark.slow
def test_a_password_that_is_put_right_in_its_file_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: RtspServer
) -> None:
    """The server here has no accounts: the refusal is the file's own."""
    monkeypatch.setattr("edgeinfer.flow.capture.backoff.LASTING_BASE_S", 0.3)
    secret = tmp_path / "password"
    options = rtsp.Options(user="admin", password_file=str(secret), connect_s=2)
    desk = Desk()
    with capturing(desk, lambda: rtsp.open(server.url(), options), LIMITS, reconnect=True):
        desk.until(desk.state_is("failed"), "failed")
        assert desk.code("failed") == "unauthorized"
        secret.write_text("s3cret\n")
        desk.until(desk.got(3), "frames")


def url(proxy: FaultyProxy) -> str:
    return f"rtsp://127.0.0.1:{proxy.port}/clip.mp4/play_count_0"


# Credentials

SECRET = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@given(SECRET.map(lambda t: f"us{t}"), SECRET.map(lambda t: f"pw{t}"))
def test_an_account_goes_into_the_url_encoded_and_out_of_it_never(user: str, password: str) -> None:
    peer = account("rtsp://cam:554/x?a=b", user, password, None)
    assert repr(peer) == str(peer) == "Account(rtsp://cam:554/x?a=b)"
    before, _, after = peer.full_url.removeprefix("rtsp://").partition("@")
    assert after == "cam:554/x?a=b"
    assert before.isascii()
    assert account(peer.full_url, None, None, None) == peer


def test_settings_go_before_the_url_and_variables_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("from file\n")
    environment = {"CAM_USER": "eve", "CAM_PASSWORD": "a:b@c", "DIR": str(tmp_path)}
    peer = account("rtsp://${env:CAM_USER}:${env:CAM_PASSWORD}@cam/x", None, None, None, environment)
    assert (peer.url, peer.user, peer.password) == ("rtsp://cam/x", "eve", "a:b@c")
    peer = account("rtsp://u:p@cam/x", "me", None, "${env:DIR}/p", environment)
    assert (peer.user, peer.password) == ("me", "from file")
    (tmp_path / "p").write_bytes(b" with spaces \r\n")
    assert account("rtsp://cam/x", "u", None, str(tmp_path / "p")).password == " with spaces "  # noqa: S105 (made up)
    (tmp_path / "p").write_bytes(b"x" * 4096)
    assert len(account("rtsp://cam/x", "u", None, str(tmp_path / "p")).password) == 4096
    with pytest.raises(ConfigError, match="no such variable"):
        expand("${env:NOT_SET_ANYWHERE}", environment)
    with pytest.raises(ConfigError, match="both set"):
        account("rtsp://cam/x", None, "a", "b")


def test_a_password_file_that_is_none(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 5000)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, big, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CameraError) as caught:
            account("rtsp://cam/x", "u", None, str(path))
        assert caught.value.code == "unauthorized"
        assert "xxx" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_url_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(EdgeinferError):
        assert account(f"rtsp://{text}", None, None, None, {}).url.startswith("rtsp://")


def test_options_do_not_show_a_password() -> None:
    assert "hunter2" not in repr(rtsp.Options(user="u", password="hunter2"))  # noqa: S106 (made up)


# Lateness


def test_late_pictures_are_told_and_a_clock_that_jumps_is_forgiven() -> None:
    lateness = Lateness()
    assert all(lateness.late_s(t / 30, 100 + t / 30) < 0.01 for t in range(30))
    assert lateness.late_s(1.0, 102.0) == pytest.approx(1.0, abs=0.01)
    assert lateness.late_s(2.0, 102.0) < 0.01, "caught up"
    jumped = [lateness.late_s(t / 30 - 1, 102 + t / 30) for t in range(60, int(60 + PATIENCE_S * 30 + 60))]
    assert jumped[0] > 0.9
    assert jumped[-1] < 0.1


def test_lateness_is_measured_from_the_most_punctual_and_a_jump_is_forgiven_in_five_seconds() -> None:
    lateness = Lateness()
    assert lateness.late_s(0, 100) == 0
    assert lateness.late_s(1, 101.5) == pytest.approx(0.5 - 0.002 * 1.5)
    assert lateness.late_s(2, 101.9) == 0, "earlier than the first: that is punctual now"
    assert lateness.late_s(3, 103.1) == pytest.approx(0.2, abs=0.01)
    late = [lateness.late_s(4 + t / 10, 105 + t / 10) for t in range(60)]
    since = next(index for index, value in enumerate(late) if value == 0)
    assert since / 10 == pytest.approx(PATIENCE_S - (105 - 103.1), abs=0.2)
    assert all(value > 0.9 for value in late[:since])


@given(st.integers(0, 1000), st.floats(-0.001, 0.001))
def test_a_clock_that_drifts_is_not_late(seed: int, drift: float) -> None:
    lateness, random = Lateness(), Random(seed)
    for tick in range(3000):
        now = tick * 0.1
        late = lateness.late_s(now * (1 + drift), now + random.uniform(0, 0.02))
        assert 0 <= late < 0.3


# The whole program


@pytest.mark.parametrize("decoder", ["av", "gstreamer"])
def test_no_output_shows_a_password(cli: Cli, tmp_path: Path, decoder: str) -> None:
    if decoder == "gstreamer":
        need_gst("rtspsrc")
    with faulty_proxy(0, b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm=x\r\n\r\n") as proxy:
        uri = f"rtsp://admin:hunter2@127.0.0.1:{proxy.port}/x?token=hunter3"
        kinds = ("--set", "sinks.jsonl.kinds=[status, info]", "--set", "publish=null", "--jsonl", "-")
        process = cli("run", "--source", uri, "--verbose", *kinds, "--set", f"sources.x.decoder={decoder}")
    shown = process.stdout + process.stderr
    assert process.returncode == 66, shown
    assert "edgeinfer: error: rtsp://" in shown
    assert '"code":"unauthorized"' in shown
    for secret in ("admin", "hunter2", "hunter3"):
        assert secret not in shown


def test_a_camera_that_is_typed_wrong_is_told_at_once(cli: Cli, server: RtspServer) -> None:
    process = cli("run", "--source", server.url("none.mp4"), "--set", "publish=null")
    assert process.returncode == 66
    assert "no such stream (404); check the path" in process.stderr


def test_run_ends_when_it_is_asked_to_while_a_camera_is_away(daemon_process: Start, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: {a: 'rtsp://127.0.0.1:1/x'}\npublish: null\n")
    kinds = ("--set", "sinks.jsonl.kinds=[status]")
    process = daemon_process("run", "--config", "c.yaml", "--jsonl", "-", *kinds)
    assert process.stdout is not None
    for line in map(json.loads, process.stdout):
        if line["state"] == "reconnecting":
            break
    assert line["reason"]["code"] == "refused"
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.long
@given(st.binary(max_size=3000) | st.binary(max_size=300).map(lambda tail: b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n" + tail))
@settings(max_examples=40, deadline=None)
def test_whatever_a_peer_answers_there_is_one_error_in_time(answer: bytes) -> None:
    options = rtsp.Options(connect_s=0.4, silence_s=0.4, decoder="av")
    with faulty_proxy(0, answer) as proxy:
        error = failure(f"rtsp://admin:hunter2@127.0.0.1:{proxy.port}/x", options)
    assert "hunter2" not in str(error)
    assert "\n" not in str(error)
