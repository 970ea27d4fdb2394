"""What is said where NVDEC can't be used, which decoder a source gets then, and how packets are made ready for it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.codecs import choice
from edgeinfer.codecs.bitstream import START, Bitstream, sequence_sets
from edgeinfer.codecs.choice import open_decoder, wants_nvdec
from edgeinfer.codecs.decoder import Elsewhere
from edgeinfer.codecs.software import SoftwareDecoder
from edgeinfer.cuda import access, video
from edgeinfer.errors import UnavailableError
from edgeinfer.recipe import RELEASE
from edgeinfer.sources import rtsp
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
    monkeypatch.setattr(video, "_enabled", [True])
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
    assert not wants_nvdec("auto", live=True)
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
    assert wants_nvdec("auto", True, tmp_path) == has


# --- which decoder


def test_cameras_are_nvdecs_and_files_where_tensorrt_reads_them(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == video.MODULE or None)
    assert wants_nvdec("auto", live=True)
    assert not wants_nvdec("auto", live=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in (video.MODULE, "tensorrt") or None)
    assert wants_nvdec("auto", live=False)
    for live in (False, True):
        assert wants_nvdec("nvdec", live)
        assert not wants_nvdec("av", live)
    assert rtsp.shares("rtsp://x/", rtsp.Options())
    assert not rtsp.shares("rtsp://x/", rtsp.Options(decoder="av"))
    assert not rtsp.shares("rtsp://x/", rtsp.Options(decoder="gstreamer"))


def test_ffmpegs_decoders_are_never_in_a_process_that_sources_share_unless_they_are_asked_for(
    machine: Any, tmp_path: Path
) -> None:
    found, _ = clips.packets(clips.write(tmp_path / "x.mp4", "h264", pictures=1))
    machine(Module(supported=0))
    with pytest.raises(Elsewhere, match="this GPU does not decode h264 with 8 bits"):
        open_decoder(found, "cam", "auto", live=True)
    with pytest.raises(UnavailableError, match="decoder: nvdec: this GPU does not decode h264"):
        open_decoder(found, "cam", "nvdec", live=True)
    assert isinstance(open_decoder(found, "cam", "av", live=True), SoftwareDecoder)


def test_elsewhere_the_reason_is_told(machine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(video, "_enabled", [])
    path = clips.write(tmp_path / "x.mp4", "h264", pictures=1)

    def why(wanted: Any = "auto", live: bool = True) -> str:
        return open_decoder(clips.packets(path)[0], "cam", wanted, live).choice.why

    assert why("av") == "as configured"
    assert why() == "NVDEC: it decodes in processes that sources share alone"
    assert why(live=False).startswith("a file, and no TensorRT") == (importlib.util.find_spec("tensorrt") is None)
    choice.came_from_elsewhere("this GPU does not decode h264")
    assert why() == "NVDEC: this GPU does not decode h264"
    with pytest.raises(
        UnavailableError, match="in processes that sources share alone; leave out isolated and memory_mb"
    ):
        open_decoder(clips.packets(path)[0], "cam", "nvdec", live=True)


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
