"""The benchmark's network cameras: what goes into RTP comes out of it, and a real client plays it."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.bench import report as reports
from edgeinfer.bench.cameras import cameras
from edgeinfer.bench.packets import CLOCK_HZ, MAX_PAYLOAD, pack_h264, pack_h265, read_clip, split
from edgeinfer.bench.ways import BenchPlan, Way, configured
from edgeinfer.errors import InputError
from tests.conftest import write_camera_clip, write_h264

SIZE = (160, 96)


@pytest.fixture(scope="module", params=["libx264", "libx265", "with B-frames"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / f"{request.param}.mp4"
    if request.param == "with B-frames":
        write_h264(path, 15, *SIZE)
    else:
        write_camera_clip(path, request.param, frames=15, size=SIZE)
    return path


def test_every_picture_is_stamped_with_the_time_when_it_is_shown(clip: Path) -> None:
    found = read_clip(clip)
    step = CLOCK_HZ // 30
    assert [picture.due for picture in found.pictures] == [step * number for number in range(15)]
    assert sorted(picture.shown for picture in found.pictures) == [step * number for number in range(15)]
    assert found.ticks == 15 * step
    in_order = [picture.shown for picture in found.pictures] == sorted(picture.shown for picture in found.pictures)
    assert in_order is ("B-frames" not in clip.name)


@given(st.binary(min_size=3, max_size=4 * MAX_PAYLOAD), st.sampled_from([1, 5, 7]))
def test_fragments_of_h264_make_up_the_unit_again(body: bytes, kind: int) -> None:
    unit = bytes([0x60 | kind]) + body
    payloads = pack_h264(unit)
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    if len(payloads) == 1:
        assert payloads == [unit]
        return
    assert {payload[0] for payload in payloads} == {0x60 | 28}
    assert [payload[1] >> 6 for payload in payloads] == [2, *[0] * (len(payloads) - 2), 1], "start … end"
    assert bytes([payloads[0][0] & 0xE0 | payloads[0][1] & 31]) + b"".join(p[2:] for p in payloads) == unit


@given(st.binary(min_size=3, max_size=4 * MAX_PAYLOAD), st.sampled_from([1, 19, 33]))
def test_fragments_of_h265_make_up_the_unit_again(body: bytes, kind: int) -> None:
    unit = bytes([kind << 1, 1]) + body
    payloads = pack_h265(unit)
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    if len(payloads) == 1:
        assert payloads == [unit]
        return
    assert {payload[0] >> 1 & 63 for payload in payloads} == {49}
    assert [payload[2] >> 6 for payload in payloads] == [2, *[0] * (len(payloads) - 2), 1]
    assert bytes([(payloads[0][2] & 63) << 1, 1]) + b"".join(p[3:] for p in payloads) == unit


def test_units_are_found_after_start_codes_of_both_lengths() -> None:
    assert split(b"\0\0\0\1ab\0\0\1cd\0\0\0\1e") == [b"ab", b"cd", b"e"]


@pytest.mark.slow
def test_a_client_plays_the_clip_over_and_over_and_another_is_not_disturbed(clip: Path) -> None:
    with cameras(clip) as url:
        opened = [av.open(url, options={"rtsp_transport": "tcp"}) for _ in range(2)]
        for container in opened:
            frames = container.decode(video=0)
            seen = [next(frames) for _ in range(20)]
            assert {(frame.width, frame.height) for frame in seen} == {SIZE}
            times = [frame.time for frame in seen if frame.time is not None]
            steps = {round((b - a) * 30) for a, b in pairwise(times)}
            assert steps == {1}, "time goes on from one round to the next"
            container.close()


def asked(port: int, request: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request.encode())
        return client.recv(4096).decode()


def test_what_the_server_does_not_do_it_says(clip: Path) -> None:
    with cameras(clip) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        over_udp = "SETUP rtsp://x/camera RTSP/1.0\r\nCSeq: 7\r\nTransport: RTP/AVP;unicast;client_port=4-5\r\n\r\n"
        assert asked(port, over_udp).startswith("RTSP/1.0 461 Unsupported Transport\r\nCSeq: 7\r\n")
        assert asked(port, "RECORD rtsp://x RTSP/1.0\r\nCSeq: 8\r\n\r\n").startswith("RTSP/1.0 501 ")
        assert asked(port, "nonsense\r\n\r\n") == ""
        assert asked(port, "OPTIONS * RTSP/1.0\r\nCSeq: 9\r\nContent-Length: x\r\n\r\n") == ""
        assert "OPTIONS, DESCRIBE" in asked(port, "OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n"), "it goes on after all that"


@pytest.mark.slow
def test_a_video_that_no_camera_sends_is_refused_and_the_benchmark_goes_on_without(tmp_path: Path) -> None:
    path, told = tmp_path / "old.mp4", list[str]()
    write_camera_clip(path, "mpeg4", frames=3, size=SIZE)
    with pytest.raises(InputError, match="mpeg4 can't be sent"):
        read_clip(path)
    with pytest.raises(InputError, match="mpeg4 can't be sent"), cameras(path):
        pass
    (tmp_path / "none.mp4").write_bytes(b"x" * 99)
    with pytest.raises(InputError, match="no video that can be read"):
        read_clip(tmp_path / "none.mp4")
    with ExitStack() as stack:
        assert reports._cameras(str(path), stack, told.append) == ""
    assert told[0].startswith("no network cameras: ")


def test_network_cameras_are_read_as_the_product_reads_them(tmp_path: Path) -> None:
    plan = BenchPlan(None, (1,), 1, 40, rtsp=(2,), only=("rtsp",))
    (way,) = plan.ways()
    assert way == Way("rtsp", 2)
    config = configured(way, [], 40, "x.mp4", "rtsp://127.0.0.1:9/camera")
    found = [(source.uri.plugin, source.isolation.isolated) for source in config.sources.values()]
    assert found == [("rtsp", True)] * 2
    assert config.frames == 40
