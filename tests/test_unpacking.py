"""FFmpeg's pictures as ours, and what decodes them, against FFmpeg's own conversions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.codecs import decoder, software
from edgeinfer.codecs.choice import open_decoder
from edgeinfer.codecs.software import Cores, SoftwareDecoder
from edgeinfer.codecs.unpacking import colour_of, picture_of
from edgeinfer.errors import CameraError, InputError, UnavailableError
from edgeinfer.frames import block_of
from edgeinfer.pictures.host import HostSurface
from edgeinfer.pictures.turning import turned
from edgeinfer.sources import _file, video
from edgeinfer.sources.demo import Demo, Options
from edgeinfer.types import Colour, Image
from tests.conftest import write_h264
from tests.test_surfaces import LAYOUTS, surface

DEMO = Demo(Options(width=160, height=96, realtime=False))
AS_THEY_ARE = {"yuv420p": "i420", "yuvj420p": "i420", "nv12": "nv12", "p010le": "p010", "yuv420p10le": "p010"}


def frame(name: str, width: int, height: int) -> Any:
    """A picture of FFmpeg's in that format: a photograph, with rows padded as FFmpeg pads them."""
    image = np.asarray(cv2.resize(DEMO.render(0), (width, height)), np.uint8)
    return av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=name)


def samples(given: Any) -> list[Any]:
    """Its planes without the gaps between their rows, as FFmpeg copies them."""
    name, size = given.format.name, 2 if "10" in given.format.name else 1
    rows, columns = (given.height + 1) // 2, (given.width + 1) // 2
    wide = 2 * columns if name in ("nv12", "p010le") else columns
    found = []
    for plane, (height, width) in zip(
        given.planes, [(given.height, given.width), (rows, wide), (rows, wide)], strict=False
    ):
        whole = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : width * size]
        found.append(np.ascontiguousarray(whole).view(np.uint16 if size == 2 else np.uint8))
    return found


@pytest.mark.parametrize("name", sorted(AS_THEY_ARE))
@pytest.mark.parametrize("size", [(160, 96), (33, 17), (1, 1), (2, 1), (1, 2)])
def test_what_is_420_keeps_every_sample(name: str, size: tuple[int, int]) -> None:
    one = frame(name, *size)
    found = picture_of(one)
    assert isinstance(found, HostSurface)
    assert (found.width, found.height, found.shape.layout) == (*size, AS_THEY_ARE[name])
    assert block_of(found.memory) is not None
    planes = samples(one)
    if len(planes) == 2:
        planes = [planes[0], planes[1][:, ::2], planes[1][:, 1::2]]
    raised = 6 if name == "yuv420p10le" else 0
    for plane, own in zip(planes, (found.luma, *found.chroma), strict=True):
        assert (own == plane << raised).all()


@pytest.mark.parametrize("name", ["yuv422p", "yuvj422p"])
@pytest.mark.parametrize("size", [(160, 96), (33, 17), (2, 1)])
def test_of_422_each_two_rows_of_colour_are_their_mean(name: str, size: tuple[int, int]) -> None:
    one = frame(name, *size)
    found = picture_of(one)
    assert isinstance(found, HostSurface)
    assert (found.luma == samples(one)[0][:, : size[0]]).all()
    for plane, own in zip(one.planes[1:], found.chroma, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: size[1], : own.shape[1]].astype(float)
        below = rows[np.minimum(np.arange(1, 2 * len(own), 2), size[1] - 1)]
        assert np.abs(own - (rows[::2] + below) / 2).max() <= 0.5


@pytest.mark.parametrize("name", ["bgr24", "rgb24", "rgba", "yuv444p", "gray", "yuva420p", "pal8", "yuv422p10le"])
def test_the_rest_becomes_bgr(name: str) -> None:
    one = frame(name, 33, 17) if name != "pal8" else av.VideoFrame(33, 17, "pal8")
    found = picture_of(one)
    assert isinstance(found, np.ndarray)
    assert found.shape == (17, 33, 3)
    assert (found == one.reformat(format="bgr24").to_ndarray()).all()


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuvj420p", "yuv420p10le", "yuv422p"])
def test_its_colours_are_those_that_went_in(name: str) -> None:
    found = picture_of(frame(name, 160, 96))
    assert isinstance(found, HostSurface)
    assert cv2.PSNR(found.image(), DEMO.render(0)) > 30


@pytest.mark.parametrize(
    ("colorspace", "color_range", "height", "expected"),
    [
        (2, 0, 96, Colour("bt601", False)),
        (2, 0, 719, Colour("bt601", False)),
        (2, 0, 720, Colour("bt709", False)),
        (1, 1, 96, Colour("bt709", False)),
        (6, 2, 1080, Colour("bt601", True)),
        (5, 0, 1080, Colour("bt601", False)),
        (9, 2, 96, Colour("bt2020", True)),
        (8, 1, 720, Colour("bt709", False)),
    ],
)
def test_colours_are_what_the_stream_says_or_what_is_usual(
    colorspace: int, color_range: int, height: int, expected: Colour
) -> None:
    one = av.VideoFrame(16, height, "yuv420p")
    one.colorspace, one.color_range = colorspace, color_range
    assert colour_of(one) == expected
    assert colour_of(av.VideoFrame(16, 16, "yuvj420p")).full_range


@pytest.mark.parametrize("name", ["yuv444p", "yuv422p10le"])
@pytest.mark.parametrize(
    ("matrix", "lines", "told"),
    [
        (Colorspace.ITU709, 720, (2, 0)),
        (Colorspace.ITU601, 96, (2, 0)),
        (Colorspace.ITU601, 720, (6, 1)),
        (Colorspace.ITU709, 96, (1, 2)),
        pytest.param(
            9,  # BT.2020
            720,
            (9, 1),
            marks=pytest.mark.skipif(
                not hasattr(Colorspace, "BT2020"), reason="this PyAV converts no frame that says it is BT.2020"
            ),
        ),
    ],
)
def test_what_swscale_reads_has_the_colours_of_any_other_of_its_size(
    name: str, matrix: int, lines: int, told: tuple[int, int]
) -> None:
    image = np.asarray(cv2.resize(DEMO.render(0), (lines * 16 // 9, lines)), np.uint8)
    one: Any = av.VideoFrame.from_ndarray(image, format="bgr24")
    one = one.reformat(format=name, dst_colorspace=matrix, dst_color_range=max(1, told[1]))
    one.colorspace, one.color_range = told
    found = picture_of(one)
    assert isinstance(found, np.ndarray)
    assert cv2.PSNR(found, image) > (44 if lines == 720 else 34)
    assert (one.colorspace, one.color_range) == told


@given(st.sampled_from([*LAYOUTS, "bgr"]), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_what_is_turned_is_the_picture_turned(layout: Any, width: int, height: int, quarters: int) -> None:
    if layout == "bgr":
        image: Image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        assert (np.asarray(turned(image, quarters)) == np.rot90(image, quarters)).all()
        return
    one = surface(layout, width, height, Colour("bt709", True))
    found = turned(one, quarters)
    assert isinstance(found, HostSurface)
    assert found.colour == one.colour
    for before, after in zip((one.luma, *one.chroma), (found.luma, *found.chroma), strict=True):
        assert (after == np.rot90(before, quarters)).all()


def _matrix(quarters: int) -> bytes:
    """The matrix of ISO/IEC 14496-12, 6.2.2, for so many quarters counterclockwise."""
    a, b, c, d = {1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}[quarters]
    numbers = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_film_of_a_telephone_is_upright_as_opencv_shows_it(tmp_path: Path, quarters: int) -> None:
    path = tmp_path / "phone.mp4"
    write_h264(path, 3, 160, 96)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = _matrix(quarters)
    path.write_bytes(data)
    source = video.open(str(path), video.Options())
    capture = source.read()
    source.close()
    shown = cv2.VideoCapture(str(path)).read()[1]
    assert capture is not None
    assert capture.image.shape == shown.shape
    assert cv2.PSNR(capture.image, np.asarray(shown, np.uint8)) > 30


def stream_of(path: Path) -> Any:
    container = av.open(str(path))
    return container, container.streams.video[0]


def test_a_live_stream_is_decoded_by_one_thread_and_files_by_two_while_there_are_cores(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "_cores", Cores(4))
    opened = []
    for live, threads in ((True, 1), (False, 2), (True, 1), (False, 2), (False, 1)):
        container, stream = stream_of(clip)
        opened.append((container, open_decoder(stream, "x", "auto", live)))
        assert stream.codec_context.thread_count == threads
    opened[1][1].close()
    opened[4][1].close()
    container, stream = stream_of(clip)
    open_decoder(stream, "x", "av", live=False)
    assert stream.codec_context.thread_count == 2
    for container, _ in opened:
        container.close()


def test_what_decodes_and_why_is_told(clip: Path) -> None:
    container, stream = stream_of(clip)
    assert open_decoder(stream, "x", "av", live=True).choice.name == "av"
    assert open_decoder(stream, "x", "auto", live=True).choice.why
    with pytest.raises(UnavailableError, match="x: decoder: nvdec: "):
        open_decoder(stream, "x", "nvdec", live=True)
    container.close()


def test_a_picture_that_grows_too_large_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container, stream = stream_of(clip)
    decoding = SoftwareDecoder(stream, "x", live=True, why="")
    monkeypatch.setattr(decoder, "MAX_PIXELS", stream.width * stream.height - 1)
    with pytest.raises(CameraError, match="too many"):  # noqa: PT012 (it takes a few packets)
        for packet in container.demux(stream):
            list(decoding.decode(packet))
    container.close()


def test_a_file_with_too_many_pixels_is_refused_by_its_header(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_file, "MAX_PIXELS", 640 * 360 - 1)
    with pytest.raises(InputError, match="640 × 360 pixels are too many"):
        video.open(str(clip), video.Options())


CODECS = {
    "x.mp4": "libx264",
    "x.mov": "mjpeg",
    "x.mkv": "libx265",
    "x.avi": "mpeg4",
    "x.ts": "libx264",
    "x.webm": "libvpx-vp9",
    "x.gif": "gif",
    "x.mpg": "mpeg2video",
    "x.flv": "flv",
    "x.mjpeg": "mjpeg",
}
FORMATS = {"mjpeg": "yuvj420p", "gif": "rgb8"}


def write(path: Path, codec: str, frames: int = 12) -> None:
    with av.open(str(path), "w", format="mjpeg" if path.suffix == ".mjpeg" else None) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 160, 96, FORMATS.get(codec, "yuv420p")
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(DEMO.render(index), format="bgr24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_what_opencv_opened_opens_with_the_same_pictures(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        write(path, CODECS[name])
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not encode it: {error}")
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    theirs = []
    while (shown := reader.read())[0]:
        theirs.append(np.asarray(shown[1], np.uint8))
    source = video.open(str(path), video.Options())
    ours = []
    while (capture := source.read()) is not None:
        ours.append(capture)
    source.close()
    assert len(ours) == len(theirs) > 0
    assert source.fps == pytest.approx(reader.get(cv2.CAP_PROP_FPS))
    assert min(cv2.PSNR(one.image, other) for one, other in zip(ours, theirs, strict=True)) > 27
    places = [one.t_media_ns or 0 for one in ours]
    assert places == sorted(set(places))
    assert places[0] < 200e6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"),
        ("x.mp4", "ffconcat version 1.0\nfile '{}'\n"),
        ("x.sdp", "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
        ("x.mpd", '<?xml version="1.0"?>\n<MPD><Period><BaseURL>{}</BaseURL></Period></MPD>\n'),
    ],
)
def test_a_file_that_names_others_opens_none(tmp_path: Path, clip: Path, name: str, content: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    path = tmp_path / name
    path.write_text(content.replace("{}", "clip.mp4"))
    with pytest.raises(InputError, match="not a video that FFmpeg can open"):
        video.open(str(path), video.Options())


def test_a_name_is_a_file_and_no_protocol(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "concat:a|b%03d.mp4"
    (tmp_path / name).write_bytes(clip.read_bytes())
    source = video.open(name, video.Options())
    assert source.read() is not None
    source.close()


def test_ffmpeg_calls_nobody_of_ours_while_it_decodes(clip: Path) -> None:
    """A thread of its own would wait for the interpreter, which waits for that thread."""
    av.logging.set_level(av.logging.PANIC)
    video.open(str(clip), video.Options()).close()
    assert av.logging.get_level() is None
