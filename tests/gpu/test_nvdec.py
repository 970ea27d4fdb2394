"""NVDEC: the same pictures as FFmpeg's decoder, sample by sample; from packets, files and cameras.

On a GPU with PyNvVideoCodec as it is; elsewhere it skips, and `tests/nvdec/test_stubbed.py` runs it on a stub.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.codecs import bitstream
from edgeinfer.codecs.choice import open_decoder
from edgeinfer.codecs.decoder import Decoded, Elsewhere
from edgeinfer.codecs.nvdec import NvDecoder
from edgeinfer.cuda import video, words
from edgeinfer.errors import CameraError, EdgeinferError, UnavailableError
from edgeinfer.flow.capture import Deadlines
from edgeinfer.gpu.arena import Arenas, arenas
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.guard.limits import MAX_FILE_SLOTS, MAX_SLOTS
from edgeinfer.interfaces import NoRoom
from edgeinfer.isolation import relaying
from edgeinfer.isolation.relaying import open_relaying
from edgeinfer.isolation.source import Order
from edgeinfer.pictures.host import HostSurface
from edgeinfer.sources import rtsp
from edgeinfer.sources import video as video_files
from edgeinfer.sources._file import is_turned
from edgeinfer.types import DecoderChoice
from tests.capturing import Desk, capturing
from tests.nvdec import clips
from tests.rtsp_server import RtspServer

STUBBED = "EDGEINFER_STUB" in os.environ
LIMITS = Deadlines(stall=5, timeout=10, first=30, grace=60)


def why_not() -> str:
    if (lack := video.likely()) is not None:
        return lack.why
    try:
        Cuda()("cudaMemGetInfo")
    except EdgeinferError as error:
        return error.message
    return ""


if reason := why_not():
    pytest.skip(f"needs NVDEC: {reason}", allow_module_level=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def clip(folder: Path, kind: str, size: tuple[int, int] = (320, 240), pictures: int = 24) -> Path:
    path = folder / f"{kind}-{size[0]}x{size[1]}-{pictures}.{'webm' if kind == 'vp9' else 'mp4'}"
    return path if path.exists() else clips.write(path, kind, size, pictures)


def decoded(decoder: Any, packets: list[Any]) -> Iterator[Decoded]:
    for packet in packets:
        yield from decoder.decode(packet)
    yield from decoder.flush()


@contextlib.contextmanager
def playing(path: Path, **options: Any) -> Iterator[video_files.VideoFile]:
    opened = video_files.open(str(path), video_files.Options(**{"decoder": "auto", **options}))
    try:
        yield opened
    finally:
        opened.close()


def free_bytes() -> int:
    gc.collect()
    return Cuda().memory()[0]


@pytest.mark.parametrize("kind", clips.KINDS)
def test_pictures_are_those_of_ffmpeg_in_order_with_their_times(folder: Path, kind: str) -> None:
    path = clip(folder, kind)
    stream, packets = clips.packets(path)
    decoder = open_decoder(stream, "clip", "nvdec", live=True)
    assert isinstance(decoder, NvDecoder)
    count = 0
    for got, expected in zip(decoded(decoder, packets), clips.in_software(path), strict=True):
        clips.assert_same(got.picture, expected.picture)
        assert got.time_s == pytest.approx(expected.time_s)
        count += 1
    assert count == 24
    decoder.close()


def test_a_picture_without_later_ones_before_it_comes_at_once(folder: Path) -> None:
    stream, packets = clips.packets(clip(folder, "h264"))
    decoder = NvDecoder(stream, "clip", "")
    assert [len(list(decoder.decode(packet))) for packet in packets] == [1] * 24
    decoder.close()


def test_only_key_frames_where_it_is_late(folder: Path) -> None:
    stream, packets = clips.packets(clip(folder, "h264-b"))
    keys = [packet for packet in packets if packet.is_keyframe]
    decoder = NvDecoder(stream, "clip", "")
    found = [picture for packet in packets for picture in decoder.decode(packet, key_frames_only=True)]
    assert len(found) + len(list(decoder.flush())) == len(keys) == 2
    decoder.close()


@pytest.mark.parametrize("kind", ["h264", "h264-b", "h265-b"])
def test_a_file_that_begins_again_goes_on_in_its_session(folder: Path, kind: str) -> None:
    path = clip(folder, kind)
    stream, packets = clips.packets(path)
    decoder, wanted = NvDecoder(stream, "clip", ""), list(clips.in_software(path))
    for _ in range(3):
        for got, expected in zip(decoded(decoder, packets), wanted, strict=True):
            clips.assert_same(got.picture, expected.picture)
        before = decoder._session
        stream, packets = clips.packets(path)
        assert decoder.restart(stream)
        assert decoder._session is before
    other, _ = clips.packets(clip(folder, "h265" if kind.startswith("h264") else "h264"))
    assert not decoder.restart(other)
    decoder.close()


def test_a_file_that_is_to_be_turned_is_decoded_by_ffmpeg(folder: Path) -> None:
    path = clips.write(folder / "turned.mp4", "h264", turned=90)
    stream, _ = clips.packets(path)
    assert is_turned(path)
    assert not is_turned(clip(folder, "h264"))
    assert "does not turn" in open_decoder(stream, "clip", "auto", live=False, turned=True).choice.why
    with pytest.raises(UnavailableError, match="does not turn"):
        open_decoder(stream, "clip", "nvdec", live=False, turned=True)
    opened = video_files.open(str(path), video_files.Options())
    assert opened.decoder.name == "av"
    opened.close()


def test_a_stream_that_changes_its_size_goes_on(folder: Path) -> None:
    joined, wanted = of_three_sizes(folder)
    stream, packets = clips.packets(joined)
    decoder = NvDecoder(stream, "clip", "", live=False)
    for got, expected in zip(decoded(decoder, packets), wanted, strict=True):
        clips.assert_same(got.picture, expected.picture)
    decoder.close()


def of_three_sizes(folder: Path) -> tuple[Path, list[Decoded]]:
    """A stream that changes its size twice, and its pictures."""
    paths = [clip(folder, "h264", size) for size in ((320, 240), (640, 360), (176, 144))]
    joined = folder / "joined.h264"
    joined.write_bytes(b"".join(elementary(path) for path in paths))
    return joined, [picture for path in paths for picture in clips.in_software(path)]


def elementary(path: Path) -> bytes:
    """The clip with start codes, without a container."""
    stream, packets = clips.packets(path)
    made = bitstream.Bitstream(stream)
    return b"".join(unit for packet in packets for unit in made.units(packet))


@pytest.mark.parametrize(("kind", "kinds"), [("h264", (7, 8)), ("h265", (32, 33, 34))])
def test_parameter_sets_that_are_told_beside_the_stream_are_given_first(
    folder: Path, kind: str, kinds: tuple[int, ...]
) -> None:
    """As a camera's SDP does."""
    path = clip(folder, kind)
    stream, packets = clips.packets(path)
    decoder = NvDecoder(stream, "clip", "")
    whole, sets = decoder._bitstream.units, list[bytes]()

    def without_sets(packet: Any) -> Iterator[bytes]:
        for data in whole(packet):
            units = [unit for unit in data.split(bitstream.START) if unit.strip(b"\0")]
            own = [unit for unit in units if (unit[0] & 31 if kind == "h264" else unit[0] >> 1 & 63) in kinds]
            sets.extend(own)
            decoder._bitstream._head = b"".join(bitstream.START + unit for unit in sets)
            yield b"".join(bitstream.START + unit for unit in units if unit not in own)

    decoder._bitstream.units = without_sets  # type: ignore[method-assign]
    assert len(list(decoded(decoder, packets))) == 24
    assert sets
    decoder.close()


@pytest.mark.parametrize("kind", ["h264", "h265"])
def test_damage_and_rubbish_do_no_lasting_harm(folder: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    stream, packets = clips.packets(clip(folder, kind, pictures=60))
    numbers = np.random.default_rng(0)
    decoder = NvDecoder(stream, "clip", "")
    bitstream_units = decoder._bitstream.units

    def damaged(packet: Any) -> Iterator[bytes]:
        for unit in bitstream_units(packet):
            data = bytearray(unit)
            for place in numbers.integers(len(data) // 2, len(data), 20):
                data[place] ^= int(numbers.integers(1, 256))
            yield bytes(data[: max(1, len(data) // int(numbers.integers(1, 4)))])

    first, later = packets[:30], clips.packets(clip(folder, kind))[1]
    decoder._bitstream.units = damaged  # type: ignore[method-assign]
    for packet in first:
        list(decoder.decode(packet))
    decoder._bitstream.units = bitstream_units  # type: ignore[method-assign]
    list(decoder.flush())
    after = [picture for packet in later for picture in decoder.decode(packet)]
    assert len(after) >= 20
    decoder.close()
    capfd.readouterr()


def test_sessions_come_and_go_and_leave_nothing_on_the_gpu(folder: Path) -> None:
    churn(folder, 10 if STUBBED else 50)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(STUBBED, reason="the stub has nothing to leak for so long")
@pytest.mark.parametrize("half", range(2))
def test_five_hundred_sessions(folder: Path, half: int) -> None:
    churn(folder, 250)


def churn(folder: Path, count: int) -> None:
    paths = [clip(folder, "h264"), clip(folder, "h265")]

    def one(number: int) -> None:
        stream, packets = clips.packets(paths[number % 2])
        decoder = NvDecoder(stream, "clip", "")
        for packet in packets[:5]:
            list(decoder.decode(packet))
        decoder.close()

    one(0)
    one(1)
    before = free_bytes()
    for number in range(count):
        one(number)
    assert free_bytes() == before


def test_what_it_can_not_decode_is_told_before(folder: Path) -> None:
    stream, _ = clips.packets(clip(folder, "h264", (4176, 64), 2))
    lack = video.lacks(stream)
    assert lack is not None
    assert "is more than this GPU decodes" in lack.why
    with pytest.raises(UnavailableError, match="decoder: nvdec: 4176 × 64 is more"):
        open_decoder(stream, "clip", "nvdec", live=True)
    assert "is more than this GPU decodes" in open_decoder(stream, "clip", "auto", live=False).choice.why
    with pytest.raises(Elsewhere, match="is more than this GPU decodes"):
        open_decoder(stream, "clip", "auto", live=True, elsewhere=True)


# --- memory of the GPU


def test_pictures_stay_in_the_gpus_memory_and_come_to_the_host_once(folder: Path) -> None:
    path = clip(folder, "h264")
    with playing(path) as opened:
        assert (opened.decoder.name, opened.live) == ("nvdec", False)
        capture, expected = opened.read(), next(clips.in_software(path)).picture
        assert capture is not None
        assert isinstance(capture.picture, DeviceSurface)
        assert isinstance(expected, HostSurface)
        np.testing.assert_array_equal(capture.image, expected.image())
        assert capture.image is capture.image
        assert not capture.image.flags.writeable
        assert capture.picture.sample(64) == expected.sample(64)


def test_pictures_stay_whole_while_they_are_held_and_then_their_memory_goes_round(folder: Path) -> None:
    with playing(clip(folder, "h264"), loop=True) as opened:
        kept = [opened.read() for _ in range(10)]
        before = [clips.planes(capture.picture) for capture in kept if capture is not None]
        addresses = {opened.read().picture.lease.address for _ in range(200)}  # type: ignore[union-attr]
        assert len(addresses) <= MAX_FILE_SLOTS
    for capture, planes in zip(kept, before, strict=True):
        assert capture is not None
        for now, then in zip(clips.planes(capture.picture), planes, strict=True):
            np.testing.assert_array_equal(now, then)


def test_without_room_nothing_is_read_until_a_picture_is_let_go(folder: Path) -> None:
    with playing(clip(folder, "h264"), loop=True, realtime=True) as opened:
        kept = [opened.read() for _ in range(MAX_SLOTS)]
        with pytest.raises(NoRoom):
            opened.read()
        kept.pop()
        assert opened.read() is not None


def test_pictures_that_come_together_find_room_for_all_or_come_through_host_memory(folder: Path) -> None:
    path = clip(folder, "h264-b")
    stream, packets = clips.packets(path)
    decoder = NvDecoder(stream, "clip", "")
    kept = [picture.picture for packet in packets for picture in decoder.decode(packet)]
    kept += [picture.picture for picture in decoder.flush()]
    for got, expected in zip(kept, clips.in_software(path), strict=True):
        clips.assert_same(got, expected.picture)
    assert [isinstance(picture, DeviceSurface) for picture in kept] == [number < MAX_SLOTS for number in range(24)]
    decoder.close()


def test_all_memory_of_the_gpu_comes_back(folder: Path) -> None:
    with playing(clip(folder, "h264")) as opened:
        opened.read()
    before, held = free_bytes(), arenas.held
    for _ in range(3):
        with playing(clip(folder, "h264")) as opened:
            capture = opened.read()
    assert arenas.held > held
    del capture
    assert arenas.held == held
    assert free_bytes() == before


def test_where_the_gpus_memory_for_pictures_is_used_up_they_come_through_the_hosts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeinfer.codecs.nvdec.arenas", Arenas(1 << 10))
    path = clip(folder, "h264")
    with playing(path) as opened:
        for expected in clips.in_software(path):
            capture = opened.read()
            assert capture is not None
            clips.assert_same(capture.picture, expected.picture)
            assert not isinstance(capture.picture, DeviceSurface)
    assert caplog.text.count("its pictures come through host memory") == 1


# --- cameras, demultiplexed in a process of their own


@pytest.fixture
def server(folder: Path) -> Iterator[Callable[[str], RtspServer]]:
    pytest.importorskip("aio_rtsp_toolkit")
    servers: list[RtspServer] = []

    def serve(kind: str) -> RtspServer:
        served = folder / f"rtsp-{kind}"
        served.mkdir(exist_ok=True)
        clips.write(served / "clip.mp4", kind, (320, 240), 24)
        servers.append(RtspServer(served))
        servers[-1].start()
        return servers[-1]

    yield serve
    for one in servers:
        one.kill()


def camera(url: str, **options: Any) -> Any:
    return open_relaying(rtsp, Order("rtsp", url, rtsp.Options(**options)), "cam", lambda _: 10)


@pytest.mark.parametrize("kind", ["h264", "h265"])
def test_a_camera_is_decoded_here_from_its_first_picture_on(
    folder: Path, server: Callable[[str], RtspServer], kind: str
) -> None:
    opened = camera(server(kind).url())
    try:
        assert (opened.decoder.name, opened.live) == ("nvdec", True)
        for expected, _ in zip(clips.in_software(folder / f"rtsp-{kind}" / "clip.mp4"), range(8), strict=False):
            capture = opened.read()
            assert isinstance(capture.picture, DeviceSurface)
            clips.assert_same(capture.picture, expected.picture)
    finally:
        opened.close()


def test_a_process_that_dies_is_replaced(server: Callable[[str], RtspServer]) -> None:
    desk, pids, url = Desk(), list[int](), server("h264").url()

    def open_noted() -> Any:
        opened = camera(url)
        pids.append(opened._source._packets.pid)
        return opened

    with capturing(desk, open_noted, LIMITS, reconnect=True):
        desk.until(desk.got(5), "frames")
        os.kill(pids[0], signal.SIGKILL)
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        assert desk.code("reconnecting") == "crashed"
        desk.until(desk.got(5), "frames of another process")
    assert len(set(pids)) == 2


def test_what_nvdec_does_not_decode_is_decoded_over_there(
    server: Callable[[str], RtspServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_elsewhere", {})
    monkeypatch.setattr(video, "lacks", lambda _: video.Lack("it has no such thing", "buy one"))
    url = server("h264").url()
    opened = camera(url)
    try:
        assert (opened.decoder.name, opened.decoder.why) == ("av", "NVDEC: it has no such thing")
        assert isinstance(opened.read().picture, HostSurface)
    finally:
        opened.close()
    with pytest.raises(UnavailableError, match="decoder: nvdec: it has no such thing"):
        camera(url, decoder="nvdec", connect_s=5.0, silence_s=2.9)


def test_where_nvdec_fails_with_the_first_packets_ffmpeg_takes_over(
    folder: Path, server: Callable[[str], RtspServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_elsewhere", {})
    monkeypatch.setattr(video.load(), "CreateDecoder", lambda **_: 1 / 0)
    url = server("h264").url()
    first = camera(url)
    with pytest.raises(CameraError, match="NVDEC: it fails with this stream: division by zero") as caught:
        first.read()
    assert (caught.value.code, caught.value.lasting) == ("codec", False)
    first.close()
    second = camera(url)
    assert second.decoder.name == "av"
    assert second.read() is not None
    second.close()
    with playing(clip(folder, "h264")) as opened:
        assert len(list(iter(opened.read, None))) == 24
        assert opened.decoder == DecoderChoice("av", "NVDEC: it fails with this stream: division by zero")
    fails = pytest.raises(CameraError, match="NVDEC fails: division by zero; decoder: av decodes on the CPU")
    with playing(clip(folder, "h264"), decoder="nvdec") as opened, fails:
        opened.read()


def test_a_session_that_fails_is_replaced_and_one_after_the_other_is_an_error(folder: Path) -> None:
    path = clip(folder, "h264")
    stream, packets = clips.packets(path)
    decoder = NvDecoder(stream, "clip", "")

    class Broken:
        def Decode(self, packet: Any) -> Any:  # noqa: N802 (NVIDIA's name)
            raise RuntimeError("HandlePictureDecode: error 999\nat NvDecoder.cpp")

    for packet in packets[:2]:
        decoder._session = Broken()
        assert list(decoder.decode(packet)) == []
    decoder._session = Broken()
    with pytest.raises(CameraError, match="NVDEC fails: HandlePictureDecode: error 999; decoder: av"):
        list(decoder.decode(packets[2]))
    again = [picture for packet in clips.packets(path)[1] for picture in decoder.decode(packet)]
    assert len(again) == 24, "another session was begun with the key frame"
    decoder.close()


def test_what_its_library_writes_is_counted_and_goes_nowhere(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words.listen()
    for _ in range(1000):  # it is told each time that there are twice as many
        ctypes.CDLL(None).printf(b"Decode Error occurred for picture 7\n")
    print("ours")
    deadline = time.monotonic() + 20
    while "damaged pictures" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "damaged pictures so far; it does not say of which source" in caplog.text
    assert capfd.readouterr().out == "ours\n"
