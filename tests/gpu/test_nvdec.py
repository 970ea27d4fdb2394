"""NVDEC: the same pictures as FFmpeg's decoder, sample by sample; alone, and from a process that sources share.

On a GPU with PyNvVideoCodec as it is; elsewhere it skips, and `tests/nvdec/test_stubbed.py` runs it on a stub.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeinfer import frames
from edgeinfer.codecs import bitstream
from edgeinfer.codecs.choice import open_decoder
from edgeinfer.codecs.decoder import Decoded, Elsewhere
from edgeinfer.codecs.nvdec import NvDecoder
from edgeinfer.cuda import video
from edgeinfer.errors import CameraError, EdgeinferError, UnavailableError
from edgeinfer.flow.capture import Deadlines
from edgeinfer.gpu.arena import Arenas, arenas
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.guard.limits import MAX_GUESTS, MAX_HUNG_GUESTS, MAX_SLOTS
from edgeinfer.interfaces import NoRoom
from edgeinfer.isolation.house import house
from edgeinfer.isolation.sharing import open_sharing
from edgeinfer.isolation.source import IsolatedSource, Order, open_isolated
from edgeinfer.pictures.host import HostSurface
from edgeinfer.sources import rtsp
from edgeinfer.sources import video as video_files
from edgeinfer.sources._file import is_turned
from edgeinfer.types import Capture, DecoderChoice
from tests.capturing import Desk, capturing
from tests.nvdec import clips, source
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


@pytest.fixture(autouse=True)
def decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may decode with NVDEC, as those that sources share do."""
    monkeypatch.setattr(video, "_enabled", [True])


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
def shared(path: Path, **options: Any) -> Iterator[IsolatedSource]:
    order = Order("tests.nvdec.source", str(path), source.Options(**options))
    opened = open_sharing(order, "clip", lambda _: 20)
    try:
        yield opened
    finally:
        opened.close()


def read_all(opened: IsolatedSource) -> Iterator[Capture]:
    while (capture := opened.read()) is not None:
        yield capture


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


def test_a_file_that_is_to_be_turned_is_decoded_elsewhere(folder: Path) -> None:
    path = clips.write(folder / "turned.mp4", "h264", turned=90)
    stream, _ = clips.packets(path)
    assert is_turned(path)
    assert not is_turned(clip(folder, "h264"))
    with pytest.raises(Elsewhere, match="does not turn"):
        open_decoder(stream, "clip", "auto", live=False, turned=True)
    with pytest.raises(UnavailableError, match="does not turn"):
        open_decoder(stream, "clip", "nvdec", live=False, turned=True)
    with pytest.raises(Elsewhere, match="does not turn"):
        video_files.open(str(path), video_files.Options(decoder="auto", realtime=True))


def test_a_stream_that_changes_its_size_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeinfer.codecs.nvdec.RENEWAL_S", 0.0)
    joined, wanted = of_three_sizes(folder)
    stream, packets = clips.packets(joined)
    decoder = NvDecoder(stream, "clip", "")
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
    with pytest.raises(Elsewhere, match="is more than this GPU decodes"):
        open_decoder(stream, "clip", "auto", live=True)


# --- from a process that sources share


@pytest.mark.parametrize("kind", ["h264-b", "h265-10"])
def test_a_shared_process_gives_the_same_pictures_in_our_memory_of_the_gpu(folder: Path, kind: str) -> None:
    path = clip(folder, kind)
    with shared(path) as opened:
        assert (opened.decoder.name, opened.live) == ("nvdec", False)
        expected = clips.in_software(path)
        for capture in read_all(opened):
            assert isinstance(capture.picture, DeviceSurface)
            clips.assert_same(capture.picture, next(expected).picture)
        assert next(expected, None) is None


def test_the_image_and_a_sample_are_those_of_a_picture_in_host_memory(folder: Path) -> None:
    path = clip(folder, "h264")
    with shared(path) as opened:
        capture, expected = opened.read(), next(clips.in_software(path)).picture
        assert capture is not None
        assert isinstance(capture.picture, DeviceSurface)
        assert isinstance(expected, HostSurface)
        np.testing.assert_array_equal(capture.image, expected.image())
        assert capture.image is capture.image
        assert not capture.image.flags.writeable
        assert capture.picture.sample(64) == expected.sample(64)


def test_pictures_stay_whole_while_they_are_held_and_then_their_memory_goes_round(folder: Path) -> None:
    path = clip(folder, "h264")
    with shared(path, loop=True) as opened:
        kept = [opened.read() for _ in range(10)]
        before = [clips.planes(capture.picture) for capture in kept if capture is not None]
        for _ in range(40):
            opened.read()
        for capture, planes in zip(kept, before, strict=True):
            assert capture is not None
            for now, then in zip(clips.planes(capture.picture), planes, strict=True):
                np.testing.assert_array_equal(now, then)
    after = [clips.planes(capture.picture) for capture in kept if capture is not None]
    assert all(
        (a == b).all() for one, other in zip(after, before, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_without_room_nothing_is_asked_until_a_picture_is_let_go(folder: Path) -> None:
    with shared(clip(folder, "h264"), loop=True, live=True) as opened:
        kept = [opened.read() for _ in range(MAX_SLOTS)]
        with pytest.raises(NoRoom):
            opened.read()
        kept.pop()
        assert opened.read() is not None


def test_pictures_of_another_size_get_other_memory_of_the_gpu(folder: Path) -> None:
    joined, wanted = of_three_sizes(folder)
    at_once = "from edgeinfer.codecs import nvdec; nvdec.RENEWAL_S = 0.0"
    held = arenas.held
    with shared(joined, then=at_once) as opened:
        for capture, expected in zip(read_all(opened), wanted, strict=True):
            assert isinstance(capture.picture, DeviceSurface)
            clips.assert_same(capture.picture, expected.picture)
        del capture
    assert arenas.held == held


def test_all_memory_of_the_gpu_comes_back(folder: Path) -> None:
    with shared(clip(folder, "h264")) as opened:
        opened.read()
    before, held = free_bytes(), arenas.held
    for _ in range(3):
        with shared(clip(folder, "h264")) as opened:
            capture = opened.read()
    assert arenas.held > held
    del capture
    assert (arenas.held, free_bytes()) == (held, before)


def test_where_the_gpus_memory_for_pictures_is_used_up_they_come_through_the_hosts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeinfer.isolation.slots.arenas", Arenas(1 << 20))
    path = clip(folder, "h264")
    expected = clips.in_software(path)
    with shared(path) as opened:
        for capture in read_all(opened):
            assert not isinstance(capture.picture, DeviceSurface)
            wanted = next(expected).picture
            assert isinstance(wanted, HostSurface)
            np.testing.assert_array_equal(capture.image, wanted.image())


@pytest.mark.parametrize("kind", ["h264", "h265"])
def test_a_network_camera_is_decoded_from_its_first_picture_on(folder: Path, kind: str) -> None:
    pytest.importorskip("aio_rtsp_toolkit")
    served = folder / f"rtsp-{kind}"
    served.mkdir(exist_ok=True)
    path = clips.write(served / "clip.mp4", kind, (320, 240), 24)
    server = RtspServer(served)
    server.start()
    opened = open_sharing(Order("rtsp", server.url(), rtsp.Options()), "cam", lambda _: 10)
    try:
        assert (opened.decoder.name, opened.live) == ("nvdec", True)
        for expected, _ in zip(clips.in_software(path), range(8), strict=False):
            capture = opened.read()
            assert capture is not None
            assert isinstance(capture.picture, DeviceSurface)
            clips.assert_same(capture.picture, expected.picture)
    finally:
        opened.close()
        server.kill()


def test_several_sources_are_in_one_process_each_with_its_own_pictures(folder: Path) -> None:
    kinds = ["h264", "h264-b", "h265", "h265-b"]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(shared(clip(folder, kind))) for kind in kinds]
        assert len({one.pid for one in opened}) == 1
        expected = [clips.in_software(clip(folder, kind)) for kind in kinds]
        for _ in range(24):
            for one, software in zip(opened, expected, strict=True):
                capture = one.read()
                assert capture is not None
                clips.assert_same(capture.picture, next(software).picture)
    assert not psutil.pid_exists(opened[0].pid)


def test_a_process_takes_so_many_sources_and_no_more(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(shared(clip(folder, "h264"))) for _ in range(MAX_GUESTS + 1)]
        pids = [one.pid for one in opened]
        assert len(set(pids[:-1])) == 1
        assert pids[-1] != pids[0]


def test_a_process_that_dies_is_replaced_and_its_sources_come_back(folder: Path) -> None:
    desk, pids = Desk(), list[int]()
    path = clip(folder, "h264")

    def open_noted() -> IsolatedSource:
        order = Order("tests.nvdec.source", str(path), source.Options(live=True, loop=True, then="time.sleep(0.01)"))
        opened = open_sharing(order, "cam", lambda _: 10)
        pids.append(opened.pid)
        return opened

    with capturing(desk, open_noted, LIMITS, reconnect=True):
        desk.until(desk.got(10), "frames")
        os.kill(pids[0], signal.SIGKILL)
        desk.until(desk.state_is("reconnecting"), "reconnecting")
        assert desk.code("reconnecting") == "crashed"
        desk.until(desk.got(10), "frames of another process")
    assert len(set(pids)) == 2


def test_one_that_hangs_is_given_up_alone(folder: Path) -> None:
    with shared(clip(folder, "h264"), loop=True) as other:
        pid = hang(folder)
        assert pid == other.pid
        assert other.read() is not None


def test_a_process_in_which_too_many_hang_is_replaced(folder: Path) -> None:
    with shared(clip(folder, "h264"), loop=True) as other:
        assert {hang(folder) for _ in range(MAX_HUNG_GUESTS)} == {other.pid}
        with pytest.raises(CameraError) as caught:
            other.read()
        assert caught.value.code == "crashed"
        assert not psutil.pid_exists(other.pid)
        with shared(clip(folder, "h264")) as next_one:
            assert next_one.read() is not None


def hang(folder: Path) -> int:
    """A source that never comes back, and is given up. Returns its process."""
    order = Order("tests.nvdec.source", str(clip(folder, "h264")), source.Options(live=True, then="time.sleep(600)"))
    opened = open_sharing(order, "cam", lambda _: 0.3)
    with pytest.raises(CameraError) as caught:
        opened.read()
    assert caught.value.code == "hung"
    opened.close()
    return opened.pid


def test_what_nvdec_does_not_decode_is_decoded_in_a_process_of_its_own(folder: Path) -> None:
    path = clip(folder, "h264", (4176, 64), 2)
    with shared(clip(folder, "h264")) as other, shared(path) as opened:
        assert opened.pid != other.pid
        assert opened.decoder.name == "av"
        assert "is more than this GPU decodes" in opened.decoder.why
        assert len(list(read_all(opened))) == 2


def test_where_nvdec_fails_with_the_first_packets_ffmpeg_takes_over(folder: Path) -> None:
    path = clip(folder, "h264", pictures=25)
    breaks = "import PyNvVideoCodec as m; m.CreateDecoder = lambda **_: 1 / 0"
    order = Order("tests.nvdec.source", str(path), source.Options(then=breaks))
    first = open_sharing(order, "clip", lambda _: 20)
    with pytest.raises(CameraError, match="NVDEC: it fails with this stream: division by zero") as caught:
        first.read()
    assert (caught.value.code, caught.value.lasting) == ("codec", False)
    first.close()
    with shared(path) as second:
        assert second.decoder == DecoderChoice("av", "NVDEC: it fails with this stream: division by zero")
        assert len(list(read_all(second))) == 25


def test_where_it_is_asked_for_and_fails_there_is_nothing_else(folder: Path) -> None:
    path = clip(folder, "h264", pictures=23)
    breaks = "import PyNvVideoCodec as m; m.CreateDecoder = lambda **_: 1 / 0"
    fails = pytest.raises(CameraError, match="NVDEC fails: division by zero; decoder: av decodes on the CPU")
    with shared(path, decoder="nvdec", then=breaks) as opened, fails:
        opened.read()
    with pytest.raises(UnavailableError, match="decodes in processes that sources share alone"):
        open_isolated(Order("tests.nvdec.source", str(path), source.Options(decoder="nvdec")), "clip", lambda _: 20)


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


def test_what_its_library_writes_goes_nowhere_but_is_counted(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    writes = "import ctypes; ctypes.CDLL(None).printf(b'Decode Error occurred for picture 7\\n')"
    with shared(clip(folder, "h264"), then=writes) as opened:
        assert opened.read() is not None
        (shared_process,) = house._shared
        deadline = time.monotonic() + 20
        while not shared_process.damaged and time.monotonic() < deadline:
            shared_process.says_something(0.1)
            shared_process.listen()
        assert shared_process.damaged >= 1
    assert capfd.readouterr().out == ""


def test_a_process_that_sources_share_has_its_descriptors_bounded(folder: Path) -> None:
    with shared(clip(folder, "h264")) as opened:
        assert psutil.Process(opened.pid).rlimit(psutil.RLIMIT_NOFILE)[1] <= 4096


def test_a_process_that_swells_ends_by_itself(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    swells = "from edgeinfer.isolation import shared; shared.most_bytes = lambda: 1; time.sleep(5)"
    with shared(clip(folder, "h264"), loop=True) as other, shared(clip(folder, "h264"), then=swells) as opened:
        for one in (opened, other):
            with pytest.raises(CameraError) as caught:
                one.read()
            assert caught.value.code == "crashed"
    assert "had too much memory and has ended" in caplog.text


def test_no_memory_of_the_host_is_lent_for_pictures_on_the_gpu(folder: Path) -> None:
    before = frames.store.held
    with shared(clip(folder, "h264")) as opened:
        assert opened.read() is not None
        assert frames.store.held == before
