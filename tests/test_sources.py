"""Contract tests over every source plugin, and what each does with bad input."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest

from edgeinfer.config import plugins
from edgeinfer.contract import breach
from edgeinfer.errors import CameraError, ConfigError, InputError, StalledError, UnavailableError
from edgeinfer.flow.capture import Deadlines
from edgeinfer.frames import block_of
from edgeinfer.interfaces import Source, UnreadableItem
from edgeinfer.pictures.host import HostSurface
from edgeinfer.sources import demo, images, v4l2, video
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.types import Capture, Colour
from tests.capturing import Desk, capturing
from tests.conftest import CLIP_FRAMES, need_gst, write_h264
from tests.outside import install
from tests.rtsp_server import RtspServer

EXTENDING = Path(__file__).parent.parent / "docs" / "extending.md"


class FakeCapture:
    """A V4L2 camera behind OpenCV's interface, for machines without one. Only members that the real class has."""

    def __init__(self, device: str, api: int) -> None:
        assert api == cv2.CAP_V4L2
        self.opened = True
        self.frames: list[Any] = [np.zeros((4, 6, 3), np.uint8) for _ in range(3)]
        self.stamp_ms = 0.0
        self.settings: dict[int, float] = {}

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self.opened

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def get(self, prop: int) -> float:
        return self.stamp_ms if prop == cv2.CAP_PROP_POS_MSEC else 30.0

    def read(self, image: Any = None) -> tuple[bool, Any]:
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self) -> None:
        self.opened = False


def test_the_fake_camera_has_only_what_the_real_one_has() -> None:
    members = {name for name in vars(FakeCapture) if not name.startswith("_")}
    assert members <= set(dir(cv2.VideoCapture))


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "video0"
    path.touch()
    return path


OUTSIDE = "mycameras.noise"
"""The source in docs/extending.md, as a reader of that page has it on PYTHONPATH."""
RATES = {"demo": 30, "video": 30, "rtsp": 30, "v4l2": 30, OUTSIDE: 10}
"""What each says of its rate here; the others say nothing."""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", EXTENDING.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "class Noise" in block]
    install(monkeypatch, tmp_path, OUTSIDE, block)


@pytest.fixture
def uri(request: pytest.FixtureRequest, name: str) -> str:
    """Something for the plugin `name` to open."""
    if name == OUTSIDE:
        request.getfixturevalue("outside")
        return f"{OUTSIDE}:"
    if name == "rtsp":
        server: RtspServer = request.getfixturevalue("rtsp_server")
        return server.url()
    if name == "gst":
        need_gst()
    if name == "csi":
        pytest.skip("no CSI camera here")
    fixture = {"images": "photos", "video": "clip", "v4l2": "device"}.get(name)
    path = str(request.getfixturevalue(fixture)) if fixture else ""
    uris = {"demo": "demo:", "gst": "gst:videotestsrc is-live=true", "v4l2": f"v4l2://{path}"}
    return uris.get(name, path)


@contextmanager
def opened(name: str, uri: str) -> Iterator[Source]:
    module: ModuleType = plugins.load("sources", name)
    extra: tuple[Any, ...] = (FakeCapture,) if name == "v4l2" else ()
    source: Source = module.open(uri, module.Options(), *extra)
    yield source
    source.close()


@pytest.mark.parametrize("name", [*plugins.names("sources"), OUTSIDE])
def test_what_every_source_gives(name: str, uri: str) -> None:
    before = time.monotonic_ns(), time.time_ns()  # a camera may take pictures as soon as it is opened
    with opened(name, uri) as source:
        captures = [source.read(), source.read()]
        after = time.monotonic_ns(), time.time_ns()
        assert isinstance(source.live, bool)
        assert source.live is (name not in ("images", "video"))
        assert source.fps == pytest.approx(RATES.get(name, 0))
    for capture in captures:
        assert isinstance(capture, Capture)
        assert breach(capture) == ""
        assert not capture.image.flags.writeable
        assert before[0] <= capture.t_mono_ns <= after[0]
        assert before[1] <= capture.t_ns <= after[1]
    assert captures[0] is not None
    assert captures[1] is not None
    assert captures[0].t_mono_ns < captures[1].t_mono_ns
    assert not np.shares_memory(captures[0].image, captures[1].image)


def test_a_video_gives_every_frame_and_its_place(clip: Path) -> None:
    source = video.open(str(clip), video.Options())
    captures = []
    while (capture := source.read()) is not None:
        captures.append(capture)
    source.close()
    assert str(clip) not in {file.path for file in psutil.Process().open_files()}, "the file stays open"
    assert len(captures) == CLIP_FRAMES
    places = [capture.t_media_ns for capture in captures]
    assert places == pytest.approx([round(i * 1e9 / 30) for i in range(CLIP_FRAMES)], abs=1e6)


def test_a_video_that_loops_goes_on_and_stays_alive(clip: Path) -> None:
    source = video.open(str(clip), video.Options(loop=True))
    for _ in range(CLIP_FRAMES * 2 + 5):
        assert source.read() is not None
    source.close()


def test_a_truncated_video_says_so_after_its_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    write_h264(path, 60)
    _move_header_to_the_front(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = video.open(str(path), video.Options())
    frames = 0
    with pytest.raises(InputError, match="frames: truncated"):  # noqa: PT012 (the last read raises, not the first)
        while source.read() is not None:
            frames += 1
    assert 0 < frames < 55


def _move_header_to_the_front(path: Path) -> None:
    whole = path.with_name("whole.mp4")
    with av.open(str(path)) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole.replace(path)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), (b"", "not a video"), (b"hello\n" * 100, "not a video")]
)
def test_what_is_no_video(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        video.open(str(path), video.Options())


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        video.open(str(tmp_path), video.Options())


def test_images_come_in_the_order_of_their_names(photos: Path) -> None:
    source = images.open(f"{photos}/*", images.Options())
    sizes = []
    while (capture := source.read()) is not None:
        sizes.append(capture.image.shape[1::-1])
    assert sizes == [(1280, 720), (640, 480), (300, 800), (417, 413), (64, 64)]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_bad_picture_does_not_end_the_folder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((1, 1, 3), np.uint8))
    source = images.open(str(tmp_path), images.Options())
    with pytest.raises(UnreadableItem, match=r"a\.png"):
        source.read()
    capture = source.read()
    assert capture is not None
    assert capture.image.shape == (1, 1, 3)
    assert source.read() is None


def test_a_picture_over_the_size_limit_is_not_decoded(photos: Path) -> None:
    source = images.open(str(photos / "0.jpg"), images.Options(max_bytes=100))
    with pytest.raises(UnreadableItem, match="larger than 100 bytes"):
        source.read()


@pytest.mark.parametrize(
    ("uri", "says"), [("{}/none.jpg", "no such file"), ("{}/*.jpg", "no file matches"), ("{}", "no images")]
)
def test_where_there_are_no_images(tmp_path: Path, uri: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        images.open(uri.format(tmp_path), images.Options())


def test_the_camera_is_asked_for_what_the_options_say(device: Path) -> None:
    fakes: list[FakeCapture] = []

    def opener(name: str, api: int) -> Any:
        fakes.append(FakeCapture(name, api))
        return fakes[0]

    v4l2.open(f"v4l2://{device}", v4l2.Options(width=640, height=480, fps=15, fourcc="MJPG"), opener)
    settings = fakes[0].settings
    assert settings[cv2.CAP_PROP_FRAME_HEIGHT] == 480
    assert settings[cv2.CAP_PROP_BUFFERSIZE] == 2, "an old picture in a queue is worth nothing"
    assert settings[cv2.CAP_PROP_FRAME_WIDTH] == 640
    assert settings[cv2.CAP_PROP_FPS] == 15
    assert settings[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert next(iter(settings)) == cv2.CAP_PROP_FOURCC, "the driver picks sizes for the format that is set already"


@pytest.mark.parametrize(("age_ms", "clock"), [(20, "driver"), (-5000, "arrival"), (1e9, "arrival")])
def test_the_drivers_stamp_is_used_where_it_can_be_true(device: Path, age_ms: float, clock: str) -> None:
    fake = FakeCapture("", cv2.CAP_V4L2)
    camera = v4l2.open(f"v4l2://{device}", v4l2.Options(), lambda *_: fake)  # type: ignore[arg-type]
    now = time.monotonic_ns()
    fake.stamp_ms = now / 1e6 - age_ms
    capture = camera.read()
    assert capture.clock == clock
    if clock == "driver":
        assert capture.t_mono_ns == pytest.approx(now - age_ms * 1e6, abs=1e6)


@pytest.mark.slow
def test_a_camera_that_gives_nothing_stalls_and_one_that_is_gone_fails(device: Path) -> None:
    fake = FakeCapture("", cv2.CAP_V4L2)
    fake.frames = []
    camera = v4l2.open(f"v4l2://{device}", v4l2.Options(), lambda *_: fake)  # type: ignore[arg-type]
    with pytest.raises(StalledError, match="no frame within"):
        camera.read()
    device.unlink()
    with pytest.raises(InputError, match="gone"):
        camera.read()


def test_a_camera_that_is_plugged_in_elsewhere_goes_on_under_its_name(tmp_path: Path) -> None:
    """udev points the by-id link at the new node; the driver of the old one fails every read."""
    for number in (0, 1):
        (tmp_path / f"video{number}").touch()
    link = tmp_path / "usb-Example_Front-video-index0"
    link.symlink_to("video0")
    opened_nodes: list[str] = []
    gone: set[str] = set()

    class Plugged(FakeCapture):
        def __init__(self, device: str, api: int) -> None:
            super().__init__(device, api)
            opened_nodes.append(Path(device).name)
            self.frames = []

        def read(self, image: Any = None) -> tuple[bool, Any]:
            if opened_nodes[-1] in gone:
                return False, None
            time.sleep(0.005)
            return True, np.zeros((4, 6, 3), np.uint8)

    desk = Desk()
    opener: Any = Plugged
    camera = v4l2.open
    with capturing(desk, lambda: camera(f"v4l2://{link}", v4l2.Options(), opener), Deadlines(), reconnect=True):
        desk.until(desk.got(3), "frames")
        link.unlink()
        (tmp_path / "video0").unlink()
        gone.add("video0")
        desk.until(lambda: ("reconnecting", "gone") in desk.states, "reconnecting")
        link.symlink_to("video1")
        desk.until(desk.got(3), "frames of the camera under its new number")
    assert (opened_nodes[0], opened_nodes[-1]) == ("video0", "video1")
    ids = [frame.frame_id for frame in desk.frames]
    assert ids == sorted(set(ids)), "its numbers went on"


def test_a_link_that_points_elsewhere_is_noticed_while_the_old_node_is_still_there(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"video{number}").touch()
    link = tmp_path / "usb"
    link.symlink_to("video0")
    fake = FakeCapture("", cv2.CAP_V4L2)
    fake.frames = []
    camera = v4l2.open(f"v4l2://{link}", v4l2.Options(), lambda *_: fake)  # type: ignore[arg-type]
    link.unlink()
    link.symlink_to("video1")
    with pytest.raises(CameraError) as caught:
        camera.read()
    assert caught.value.code == "gone"


def test_a_camera_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cameras here"):
        v4l2.open(f"v4l2://{tmp_path}/video7", v4l2.Options())


@pytest.mark.skipif(not os.path.exists("/dev/video0"), reason="no camera at /dev/video0")  # noqa: PTH110
def test_a_real_camera() -> None:
    camera = v4l2.open("v4l2:///dev/video0", v4l2.Options())
    assert camera.read().image.size > 0
    camera.close()


def test_the_demo_is_the_same_every_time_and_knows_what_it_shows() -> None:
    first, second = (demo.open("demo:", demo.Options(realtime=False)) for _ in range(2))
    for index in (0, 99, 100, 250):
        assert (first.render(index) == second.render(index)).all()
        label, (x1, y1, x2, y2) = first.truth(index)
        assert label in {"person", "cat"}
        assert 0 <= x1 < x2 <= 1280
        assert 0 <= y1 < y2 <= 720
    assert not (first.render(0) == first.render(1)).all()


def test_the_demo_takes_no_path() -> None:
    with pytest.raises(InputError, match="takes no path"):
        demo.open("demo:x", demo.Options())


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes when somebody sleeps. Its one number is the monotonic clock in seconds."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return now


def test_pictures_are_paced_and_a_late_one_does_not_delay_the_next(virtual: list[float]) -> None:
    pacer, given = Pacer(10), list[float]()
    for work_s in (0, 0, 0.05, 0.25, 0, 0, 0):
        pacer.wait()
        given.append(round(virtual[0] - 1000, 3))
        virtual[0] += work_s
    assert given == [0, 0.1, 0.2, 0.3, 0.55, 0.55, 0.6], "late is made up for while it is little"
    virtual[0] += 60
    pacer.wait()
    pacer.wait()
    assert virtual[0] - 1000 == pytest.approx(60.6 + 0.1), "a minute is not"


@pytest.mark.parametrize("name", ["demo", "images", "video"])
def test_what_plays_in_real_time_is_paced(name: str, virtual: list[float], photos: Path, clip: Path) -> None:
    source: Source
    if name == "demo":
        source = demo.open("demo:", demo.Options(fps=4))
    elif name == "images":
        source = images.open(str(photos), images.Options(fps=4))
    else:
        source = video.open(str(clip), video.Options(realtime=True))
        assert source.live
    for _ in range(5):
        assert source.read() is not None
    assert virtual[0] - 1000 == pytest.approx(4 / source.fps)
    source.close()


def test_a_stamp_is_of_when_the_picture_was_taken_on_both_clocks() -> None:
    before = time.time_ns(), time.monotonic_ns()
    capture = stamped(np.zeros((1, 1, 3), np.uint8), "driver", 7, age_ns=5_000_000_000)
    after = time.time_ns(), time.monotonic_ns()
    assert before[0] <= capture.t_ns + 5_000_000_000 <= after[0]
    assert before[1] <= capture.t_mono_ns + 5_000_000_000 <= after[1]
    assert (capture.clock, capture.t_media_ns) == ("driver", 7)
    assert not capture.image.flags.writeable


def test_the_demo_gives_as_many_frames_as_it_is_asked_for_and_says_when_they_are(virtual: list[float]) -> None:
    source = demo.open("demo:", demo.Options(realtime=False, frames=3, fps=10, width=96, height=64))
    captures = [source.read() for _ in range(4)]
    assert [capture and capture.t_media_ns for capture in captures] == [0, 100_000_000, 200_000_000, None]
    first = captures[0]
    assert first is not None
    assert first.image.shape == (64, 96, 3)
    assert (source.live, virtual) == (False, [1000.0])


def test_the_demo_goes_through_all_its_scenes_and_objects_lie_where_it_says() -> None:
    camera = demo.open("demo:", demo.Options(realtime=False))
    assert [camera.truth(index)[0] for index in (0, 100, 200, 300)] == ["person", "cat", "person", "person"]
    boxes = [camera.truth(index)[1] for index in range(300)]
    assert all(0 <= x1 < x2 <= 1280 and 0 <= y1 < y2 <= 720 for x1, y1, x2, y2 in boxes)
    for index in (10, 130, 260):
        scene = demo.SCENES[demo.scene_number(index)]
        x1, y1, x2, y2 = (int(value) for value in camera.truth(index)[1])
        photo = cv2.imread(str(demo.PHOTOS / scene.file))
        assert photo is not None
        left, top, right, bottom = (int(value) for value in scene.box)
        seen = camera.render(index)[y1:y2, x1:x2]
        whole = cv2.resize(photo[top:bottom, left:right], (x2 - x1, y2 - y1))
        assert np.abs(seen.astype(int) - whole).mean() < 12, "the box is not where the object is"


def test_pictures_at_a_rate_have_their_places_and_a_loop_goes_on(photos: Path, virtual: list[float]) -> None:
    source = images.open(str(photos), images.Options(fps=10, loop=True))
    captures = [source.read() for _ in range(7)]
    assert [capture and capture.t_media_ns for capture in captures] == [i * 100_000_000 for i in range(7)]
    shapes = [capture.image.shape for capture in captures if capture]
    assert shapes[5:] == shapes[:2]
    assert captures[0] is not None
    assert captures[0].clock == "file"


def test_a_loop_without_one_good_picture_ends(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    source = images.open(str(tmp_path), images.Options(loop=True))
    for _ in range(2):
        with pytest.raises(UnreadableItem):
            source.read()
    with pytest.raises(InputError, match="none of 2 pictures can be read"):
        source.read()
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((1, 1, 3), np.uint8))
    source = images.open(str(tmp_path), images.Options(loop=True))
    for _ in range(3):
        with pytest.raises(UnreadableItem):
            source.read()
        assert source.read() is not None
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UnreadableItem):
        source.read()
    with pytest.raises(UnreadableItem):
        source.read()
    with pytest.raises(InputError, match="none of 2"):
        source.read()


def test_of_a_folder_only_pictures_are_shown_in_colour(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "b.PNG"), np.zeros((2, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 5, 4), np.uint8))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "c.png"), np.zeros((6, 7, 3), np.uint8))
    source = images.open(str(tmp_path), images.Options())
    shapes = [capture.image.shape for capture in iter(source.read, None) if capture]
    assert shapes == [(4, 5, 3), (2, 3, 3)]
    deep = images.open(f"{tmp_path}/**/*.png", images.Options())
    assert [capture.image.shape for capture in iter(deep.read, None) if capture] == [(4, 5, 3), (6, 7, 3)]


def test_a_picture_of_just_the_size_that_is_allowed_is_read(photos: Path) -> None:
    size = (photos / "0.jpg").stat().st_size
    assert images.open(str(photos / "0.jpg"), images.Options(max_bytes=size)).read() is not None
    with pytest.raises(UnreadableItem, match="larger"):
        images.open(str(photos / "0.jpg"), images.Options(max_bytes=size - 1)).read()


def test_a_video_that_loops_goes_on_in_its_own_time(clip: Path) -> None:
    source = video.open(str(clip), video.Options(loop=True))
    places = [capture.t_media_ns for capture in (source.read() for _ in range(2 * CLIP_FRAMES + 3)) if capture]
    assert places == pytest.approx([round(i * 1e9 / 30) for i in range(2 * CLIP_FRAMES + 3)], abs=2e6)
    source.close()


def test_a_video_that_is_all_damage_says_so_and_does_not_loop_for_ever(tmp_path: Path, clip: Path) -> None:
    """Its header is whole, and not one frame can be decoded."""
    path = tmp_path / "bad.mp4"
    write_h264(path, 30)
    _move_header_to_the_front(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    for loop in (False, True):
        source = video.open(str(path), video.Options(loop=loop))
        with pytest.raises(InputError, match="not one frame can be decoded"):
            source.read()
        source.close()


@pytest.mark.parametrize(
    ("suffix", "before", "expected", "truncated"),
    [
        (".mp4", 0, CLIP_FRAMES + 2, False),
        (".mp4", 0, CLIP_FRAMES + 3, True),
        (".mkv", 1000 - CLIP_FRAMES, 1020, False),
        (".mkv", 1000 - CLIP_FRAMES, 1022, True),
    ],
)
def test_a_header_may_be_a_little_wrong(clip: Path, suffix: str, before: int, expected: int, truncated: bool) -> None:
    """Many writers count a frame or two more; outside MP4 the count is an estimate."""
    source = video.open(str(clip), video.Options())
    source._path, source._frames, source._expected = clip.with_suffix(suffix), before, expected
    for _ in range(CLIP_FRAMES):
        assert source.read() is not None
    with pytest.raises(InputError, match="truncated") if truncated else contextlib.nullcontext():
        assert source.read() is None
    source.close()


def test_a_camera_that_may_not_be_opened_or_is_gone_says_which(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(CameraError) as caught:
        v4l2.open(f"v4l2://{device}", v4l2.Options(), FakeCapture)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.lasting) == ("denied", True)
    device.unlink()
    with pytest.raises(CameraError) as caught:
        v4l2.open(f"v4l2://{device}", v4l2.Options(), FakeCapture)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.lasting) == ("gone", False)


def test_a_camera_that_fails_at_once_is_not_asked_again_at_once(device: Path, virtual: list[float]) -> None:
    fake = FakeCapture("", cv2.CAP_V4L2)
    fake.frames = []
    camera = v4l2.open(f"v4l2://{device}", v4l2.Options(), lambda *_: fake)  # type: ignore[arg-type]
    with pytest.raises(StalledError):
        camera.read()
    assert virtual[0] - 1000 == 1
    camera.close()
    assert not fake.opened


def test_a_cameras_pictures_are_of_the_size_that_it_gives(device: Path) -> None:
    class Sized(FakeCapture):
        def get(self, prop: int) -> float:
            sizes = {cv2.CAP_PROP_FRAME_WIDTH: 6.0, cv2.CAP_PROP_FRAME_HEIGHT: 4.0, cv2.CAP_PROP_FPS: -1.0}
            return sizes.get(prop, 0.0)

        def read(self, image: Any = None) -> tuple[bool, Any]:
            assert image.shape == (4, 6, 3), "it is to be read into the pool's memory"
            return True, image

    camera = v4l2.open(f"v4l2://{device}", v4l2.Options(), Sized)  # type: ignore[arg-type]
    assert camera.fps == 0, "a driver without a rate says -1"
    assert block_of(camera.read().image) is not None


class Jpeg(FakeCapture):
    """Sends JPEGs, which OpenCV hands over as they are where it is told to: (1, n) uint8."""

    def get(self, prop: int) -> float:
        return float(cv2.VideoWriter.fourcc(*"MJPG")) if prop == cv2.CAP_PROP_FOURCC else super().get(prop)


def test_a_cameras_jpegs_become_what_is_in_them(device: Path) -> None:
    picture = demo.Demo(demo.Options(width=96, height=64)).render(0)
    data = np.frombuffer(cv2.imencode(".jpg", picture)[1].tobytes(), np.uint8)[None]
    fake = Jpeg(str(device), cv2.CAP_V4L2)
    fake.frames = [data, data[:, : data.size // 9], data[:, :1], picture, data]
    camera = v4l2.open(f"v4l2://{device}", v4l2.Options(), lambda *_: fake)  # type: ignore[arg-type]
    assert fake.settings[cv2.CAP_PROP_CONVERT_RGB] == 0
    first = camera.read()
    assert isinstance(first.picture, HostSurface)
    assert first.picture.colour == Colour("bt601", True)
    assert cv2.PSNR(first.image, picture) > 30
    for _ in range(2):
        with pytest.raises(UnreadableItem, match="damaged"):
            camera.read()
    assert camera.read().picture is picture, "a driver may give BGR all the same"
    assert isinstance(camera.read().picture, HostSurface), "the next one may be good"
    camera.close()


@pytest.mark.parametrize(
    ("name", "reconnects"),
    [("csi", True), ("demo", None), ("gst", True), ("images", False), ("rtsp", True), ("v4l2", True)],
)
def test_which_sources_come_back_by_themselves(name: str, reconnects: bool | None) -> None:
    assert getattr(plugins.load("sources", name), "RECONNECT", None) is reconnects


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("loop", [False, True])
def test_only_a_video_without_an_end_comes_back_by_itself(loop: bool, realtime: bool) -> None:
    assert video.reconnects("file:///v.mp4", video.Options(loop=loop, realtime=realtime)) is (loop and realtime)


def test_an_unknown_plugin_and_a_module_that_is_none() -> None:
    with pytest.raises(ConfigError, match="did you mean video"):
        plugins.load("sources", "vidoe")
    with pytest.raises(ConfigError, match="is not a source"):
        plugins.load("sources", "os.path")


def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outside"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "camera.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnavailableError, match="install a_library_that_is_not_there"):
        plugins.load("sources", "outside.camera")


def test_a_looping_video_that_can_not_be_opened_for_a_moment_goes_on(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = av.open, [2]

    def opening(*arguments: Any, **settings: Any) -> Any:
        failures[0] -= 1
        if failures[0] >= 0:
            raise av.error.OSError(errno.EMFILE, "Too many open files")
        return real(*arguments, **settings)

    monkeypatch.setattr(video, "PAUSE_S", 0.01)
    source = video.open(str(clip), video.Options(loop=True))
    monkeypatch.setattr(av, "open", opening)
    for _ in range(CLIP_FRAMES + 2):
        assert source.read() is not None
    assert failures[0] == -1
    source.close()


def test_a_looping_video_that_was_removed_ends_at_once(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes())
    source = video.open(str(path), video.Options(loop=True))
    path.unlink()
    for _ in range(CLIP_FRAMES):
        assert source.read() is not None
    with pytest.raises(InputError, match="no such file"):
        source.read()
    source.close()
