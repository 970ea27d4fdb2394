"""What is said where NVDEC can't be used, which decoder a source gets then, and how packets are made ready for it."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer import frames
from edgeinfer.codecs import choice
from edgeinfer.codecs.bitstream import START, Bitstream, sequence_sets
from edgeinfer.codecs.choice import open_decoder, wants_nvdec
from edgeinfer.codecs.decoder import Elsewhere
from edgeinfer.codecs.facts import RelayedPacket, facts_of
from edgeinfer.codecs.software import SoftwareDecoder
from edgeinfer.cuda import access, video
from edgeinfer.errors import CameraError, UnavailableError
from edgeinfer.guard.limits import MAX_PACKET_BYTES
from edgeinfer.isolation import packets as packets_module
from edgeinfer.isolation import talk
from edgeinfer.isolation.lender import Lender
from edgeinfer.isolation.packets import RelayedPackets, plain_facts, plain_packet
from edgeinfer.recipe import RELEASE
from edgeinfer.sources import rtsp
from edgeinfer.sources import video as video_files
from tests.nvdec import clips, stub

CAPS = {"supported": 1, "width_max": 4096, "height_max": 4096, "mb_num_max": 65536, "width_min": 48, "height_min": 16}


class Module(ModuleType):
    """PyNvVideoCodec, that answers what it can do as a test says."""

    def __init__(self, **caps: int) -> None:
        super().__init__(video.MODULE)
        self.caps, self.asked = {**CAPS, **caps}, list[dict[str, Any]]()
        self.cudaVideoCodec = stub.cudaVideoCodec  # NVIDIA's name
        self.cudaVideoChromaFormat = stub.cudaVideoChromaFormat  # NVIDIA's name

    def GetDecoderCaps(self, **given: Any) -> dict[str, int]:  # noqa: N802 (NVIDIA's name)
        self.asked.append(given)
        return {**self.caps, "bitdepth": given["bitdepth"]}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A PC on which NVDEC decodes, in a process that may use it. Gives it another module."""

    def become(module: ModuleType | None) -> Any:
        video._capabilities.cache_clear()
        monkeypatch.setitem(sys.modules, video.MODULE, module)
        return module

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == video.MODULE or found(name))
    monkeypatch.setattr(video, "served", lambda: (13, 0))
    monkeypatch.setattr(video, "on_jetson", lambda _: False)
    monkeypatch.setattr(access, "find", lambda: None)
    monkeypatch.setattr(choice, "_instead", [])
    become(Module())
    yield become
    video._capabilities.cache_clear()


def stream(codec: str = "h264", pixels: str | None = "yuv420p", size: tuple[int, int] = (1280, 720)) -> Any:
    return SimpleNamespace(
        codec_context=SimpleNamespace(name=codec, pix_fmt=pixels, width=size[0], height=size[1], extradata=None)
    )


def lack(*given: Any) -> video.Lack:
    found = video.lacks(stream(*given))
    assert found is not None
    return found


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "libdav1d", "vp8", "vp9"])
def test_what_the_gpu_decodes_it_may(machine: Any, codec: str) -> None:
    assert video.lacks(stream(codec)) is None
    assert video.lacks(stream(codec, None, (0, 0))) is None, "a camera may tell later"
    assert video.lacks_here() is None


def test_it_is_asked_once_for_each_codec_and_depth(machine: Any) -> None:
    module = machine(Module())
    for _ in range(3):
        video.lacks(stream())
        video.lacks(stream("hevc", "yuv420p10le"))
    assert [(given["codec"].name, given["bitdepth"]) for given in module.asked] == [("H264", 8), ("HEVC", 10)]
    assert all(given["chromaformat"].name == "420" for given in module.asked)


@pytest.mark.parametrize(
    ("given", "caps", "says"),
    [
        (("mpeg4",), {}, "NVDEC has no mpeg4"),
        (("h264", "yuv444p"), {}, "yuv444p is not YUV 4:2:0"),
        (("hevc", "yuv422p10le"), {}, "yuv422p10le is not YUV 4:2:0"),
        (("mjpeg", "yuvj420p"), {}, "NVDEC has no mjpeg"),
        (("h264", "yuv420p10le"), {"supported": 0}, "this GPU does not decode h264 with 10 bits"),
        (("h264", "yuv420p", (4098, 64)), {}, "4098 × 64 is more than this GPU decodes"),
        (("h264", "yuv420p", (64, 4098)), {}, "64 × 4098 is more than this GPU decodes"),
        (("h264", "yuv420p", (4096, 4096)), {"mb_num_max": 65535}, "4096 × 4096 is more than this GPU decodes"),
        (("h264", "yuv420p", (32, 32)), {}, "32 × 32 is less than this GPU decodes"),
    ],
)
def test_what_it_does_not_decode_is_said(machine: Any, given: Any, caps: dict[str, int], says: str) -> None:
    machine(Module(**caps))
    found = lack(*given)
    assert says in found.why
    assert found.hint == video.SOFTWARE


@pytest.mark.parametrize(
    ("error", "says", "helps"),
    [
        (RuntimeError("Could not dynamically load libnvcuvid.so.1. Please\nensure"), "libnvcuvid.so.1", "a container"),
        (
            RuntimeError("libnvidia-encode.so.1: cannot open shared object file\n\n=== TROUBLESHOOTING"),
            "libn",
            "DRIVER",
        ),
        (RuntimeError("Driver version is too old"), "driver is too old", "update the driver"),
        (ImportError("Module not found: /x/y.so"), "PyNvVideoCodec fails: Module not found: /x/y.so", "decoder: av"),
        (UnavailableError("CUDA finds no GPU", "see edgeinfer doctor"), "CUDA finds no GPU", "see edgeinfer doctor"),
        (RuntimeError(), "PyNvVideoCodec fails: RuntimeError", "decoder: av"),
    ],
)
def test_why_it_can_not_be_used_at_all(
    machine: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str, helps: str
) -> None:
    def fails() -> Any:
        raise error

    monkeypatch.setattr(video, "load", fails)
    for found in (lack(), video.lacks_here()):
        assert found is not None
        assert says in found.why
        assert "\n" not in found.why + found.hint
        assert helps in found.hint


def test_without_the_module_its_installation_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "edgeinfer[nvdec]" in lack().hint
    assert not wants_nvdec("auto")
    with pytest.raises(UnavailableError, match=r"decoder: nvdec: PyNvVideoCodec is not installed; .*\[nvdec\]"):
        open_decoder(stream(), "cam", "nvdec", live=True)


def test_without_a_driver_nothing_is_asked(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "served", lambda: None)
    assert "no CUDA driver" in lack().why
    assert not sys.modules[video.MODULE].asked


@pytest.mark.parametrize(
    ("release", "has"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic", False),
        ("# R39 (release), REVISION: 0.0", False),
        ("# R39 (release), REVISION: 2.0", True),
        ("# R40 (release), REVISION: 0.0", True),
        (None, False),
    ],
)
def test_jetsons_before_thors_of_today_decode_through_gstreamer(
    machine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str | None, has: bool
) -> None:
    monkeypatch.setattr(video, "on_jetson", lambda _: True)
    if release is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / RELEASE).write_text(release)
    found = video.likely(tmp_path)
    assert (found is None) == has
    assert found is None or found.hint == video.GSTREAMER
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert wants_nvdec("auto", tmp_path) == has


# --- which decoder


def test_sources_are_nvdecs_where_tensorrt_reads_them(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == video.MODULE or None)
    assert not wants_nvdec("auto")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in (video.MODULE, "tensorrt") or None)
    assert wants_nvdec("auto")
    assert wants_nvdec("nvdec")
    assert not wants_nvdec("av")
    assert rtsp.relays("rtsp://x/", rtsp.Options())
    assert not rtsp.relays("rtsp://x/", rtsp.Options(decoder="av"))
    assert not rtsp.relays("rtsp://x/", rtsp.Options(decoder="gstreamer"))
    assert not video_files.isolate("x.mp4", video_files.Options(realtime=True))
    assert video_files.isolate("x.mp4", video_files.Options(realtime=True, decoder="av"))


def test_what_nvdec_can_not_decode_is_ffmpegs_here_or_elsewhere(
    machine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    found, _ = clips.packets(clips.write(tmp_path / "x.mp4", "h264", pictures=1))
    machine(Module(supported=0))
    with pytest.raises(Elsewhere, match="this GPU does not decode h264 with 8 bits"):
        open_decoder(found, "cam", "auto", live=True, elsewhere=True)
    with pytest.raises(UnavailableError, match="decoder: nvdec: this GPU does not decode h264"):
        open_decoder(found, "cam", "nvdec", live=True)
    here = open_decoder(found, "cam", "auto", live=True)
    assert isinstance(here, SoftwareDecoder)
    assert here.choice.why == "NVDEC: this GPU does not decode h264 with 8 bits"


def test_in_a_process_of_its_own_the_reason_is_told(
    machine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(video, "_forbidden", [True])
    path = clips.write(tmp_path / "x.mp4", "h264", pictures=1)

    def why(wanted: Any = "auto") -> str:
        return open_decoder(clips.packets(path)[0], "cam", wanted, live=True).choice.why

    assert why("av") == "as configured"
    assert why() == "NVDEC: it decodes in the daemon's process alone"
    choice.came_from_elsewhere("this GPU does not decode h264")
    assert why() == "NVDEC: this GPU does not decode h264"
    with pytest.raises(UnavailableError, match="in the daemon's process alone; leave out isolated and memory_mb"):
        open_decoder(clips.packets(path)[0], "cam", "nvdec", live=True)


# --- a camera's packets on their way between processes


@pytest.mark.slow
@given(
    st.binary(min_size=1, max_size=200_000),
    st.none() | st.integers(-(1 << 62), 1 << 62),
    st.booleans(),
    st.none() | st.floats(-1e11, 1e11),
)
def test_a_packet_comes_as_it_was_sent(data: bytes, stamp: int | None, key: bool, wall_s: float | None) -> None:
    ours, theirs = talk.pair()
    packet = RelayedPacket(data, stamp, stamp, Fraction(1, 90000), key, wall_s)
    with ours, theirs:
        sending = threading.Thread(target=tell, args=(theirs, {"packet": plain_packet(packet)}, data))
        sending.start()
        assert relayed(ours).next() == packet
        sending.join()


def tell(peer: socket.socket, answer: dict[str, Any], data: bytes = b"") -> None:
    talk.receive(peer, 20)
    talk.send(peer, answer)
    talk.send_bytes(peer, data)


def relayed(peer: socket.socket) -> RelayedPackets:
    """One that is open, whose process is a test's end of the talk."""
    packets = RelayedPackets.__new__(RelayedPackets)
    packets._process = SimpleNamespace(peer=peer, end=lambda: "")
    packets._what, packets._patience_s, packets._ended = "cam", 20, False
    packets._lender = Lender(frames.store)
    packets.stream = facts_of(stream_of_a_camera())
    return packets


def stream_of_a_camera() -> Any:
    codec = SimpleNamespace(
        name="h264", width=4, height=2, pix_fmt="yuv420p", colorspace=1, color_range=1, extradata=b"\0\0\1g"
    )
    return SimpleNamespace(codec_context=codec, time_base=Fraction(1, 90000), average_rate=None)


@pytest.mark.parametrize(
    "lie",
    [
        {"packet": 5},
        {"packet": {"size": 0}},
        {"packet": {"size": "5"}},
        {"packet": {"size": 3, "pts": 1.5}},
        {"packet": {"size": 3, "wall_s": "x"}},
        {"picture": {}},
    ],
    ids=str,
)
def test_a_process_that_lies_about_a_packet_is_ended(lie: dict[str, Any]) -> None:
    ours, theirs = talk.pair()
    with ours, theirs:
        sending = threading.Thread(target=tell, args=(theirs, lie, b"abc"))
        sending.start()
        with pytest.raises(CameraError) as caught:
            relayed(ours).next()
        sending.join()
    assert caught.value.code == "crashed"


def test_a_packet_that_is_too_large_ends_its_process() -> None:
    ours, theirs = talk.pair()
    with ours, theirs:
        sending = threading.Thread(target=tell, args=(theirs, {"packet": {"size": MAX_PACKET_BYTES + 1}}))
        sending.start()
        packets = relayed(ours)
        with pytest.raises(CameraError) as caught:
            packets.next()
        sending.join()
    assert caught.value.code == "memory"
    assert packets._ended


PLAIN = plain_facts(facts_of(stream_of_a_camera()))


def test_a_stream_comes_as_it_was_told() -> None:
    assert packets_module._facts(PLAIN) == facts_of(stream_of_a_camera())


@given(
    st.sampled_from(sorted(PLAIN)),
    st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.integers(), max_size=3),
)
def test_a_stream_that_makes_no_sense_is_none(key: str, value: Any) -> None:
    try:
        facts = packets_module._facts({**PLAIN, key: value})
    except talk.Nonsense:
        return
    assert plain_facts(facts) == {**PLAIN, key: value} or key in {"rate", "time_base", "extradata"}


# --- packets


def test_parameter_sets_that_come_beside_the_stream_go_before_its_first_packet(tmp_path: Path) -> None:
    found, packets = clips.packets(clips.write(tmp_path / "x.mp4", "h264", pictures=2))
    made = b"".join(Bitstream(found).units(packets[0]))
    sets = sequence_sets(made, "h264")
    assert sets[0] & 0x1F == 7
    found.codec_context.extradata = b"\0" + START + sets + START + b"\x68\xce"  # as RTSP tells it, in the SDP
    told = Bitstream(found)
    assert told.head() == found.codec_context.extradata
    assert told.parameters == sets
    assert not told.changes(b"\0" + START + b"\x65\x88")
    assert not told.changes(b"\0" + START + sets + START + b"\x65\x88")
    assert told.changes(START + sets + b"\x01" + START + b"\x65\x88")
    assert not told.changes(START + sets + b"\x01")


@given(st.binary(max_size=300), st.sampled_from(["h264", "hevc", "vp9"]))
def test_whatever_comes_is_looked_through(data: bytes, codec: str) -> None:
    assert isinstance(sequence_sets(data, codec), bytes)


@given(
    st.lists(st.binary(min_size=1, max_size=20).filter(lambda unit: START not in unit and unit[-1] != 0), max_size=6)
)
def test_sets_are_found_among_other_units(units: list[bytes]) -> None:
    clean = [unit for unit in units if b"\0\0" not in unit]
    data = b"".join(START + unit for unit in clean)
    assert sequence_sets(data, "h264") == b"".join(unit for unit in clean if unit[0] & 0x1F == 7)


def test_the_stub_has_the_real_modules_names() -> None:
    for name, told in stub.MEMBERS.items():
        if name != "version" and hasattr(stub, name) and told["kind"] == "class":
            own = {member for member in vars(getattr(stub, name)) if not member.startswith("_")}
            assert own <= set(told["members"]), name
