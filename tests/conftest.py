"""What many tests need: real clips and pictures, the command line as a process, free endpoints."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import pytest
from hypothesis import settings

from edgeinfer.errors import UnavailableError
from edgeinfer.gpu.patience import PATIENCE
from edgeinfer.guard import redaction as redact
from edgeinfer.sources._gst_process import find_python
from edgeinfer.sources.demo import Demo, Options
from tests.rtsp_server import RtspServer

CLIP_FRAMES = 60
CAMERA_WIDTH, CAMERA_HEIGHT = 320, 192
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


settings.register_profile("edgeinfer", deadline=None)  # other work on the machine must not fail a test
settings.load_profile("edgeinfer")


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored; what the tests start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that starts the program as a process is slow: together they take minutes. So is what is long or alone."""
    for item in items:
        starts = {"cli", "daemon_process", "gst_python", "gst_server"} & set(getattr(item, "fixturenames", ()))
        if starts or any(item.iter_markers("long")) or any(item.iter_markers("alone")):
            item.add_marker(pytest.mark.slow)


def need_gst(*elements: str) -> str:
    """A Python with PyGObject, where GStreamer has these elements; the test is skipped elsewhere."""
    try:
        python = find_python()
    except UnavailableError as error:
        pytest.skip(str(error))
    names = ["videotestsrc", "appsink", "videoconvert", *elements]
    code = (
        "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init([])\n"
        f"print([n for n in {names} if not Gst.ElementFactory.find(n)])"
    )
    probe = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    if probe.stdout.strip() != "[]":
        pytest.skip(f"GStreamer is not complete here: {probe.stdout.strip() or probe.stderr.strip()[-200:]}")
    return python


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", {})
    monkeypatch.setattr(redact, "_said_full", False)


@pytest.fixture(autouse=True)
def _no_builds_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATIENCE, "_ended_s", float("-inf"))


@pytest.fixture(autouse=True)
def _level_names_of_other_tests() -> Iterator[None]:
    """The command line, called in a test's own process, gives logging's levels names of its own."""
    yield
    for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        logging.addLevelName(getattr(logging, name), name)


@pytest.fixture(scope="session", autouse=True)
def _state_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Daemons that tests kill, and networks that they try, are remembered in folders of the tests, not of the user."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real H.264 video in MP4 with B-frames: 60 frames of the demo, 640 × 360, spread over all its scenes."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_h264(path, CLIP_FRAMES)
    return path


def write_h264(path: Path, frames: int, width: int = 640, height: int = 360) -> None:
    """Encodes demo frames with libx264."""
    camera = Demo(Options(width=width, height=height, realtime=False))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "bf": "2"}
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(camera.render(index * 5), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_camera_clip(
    path: Path, codec: str = "libx264", frames: int = 90, size: tuple[int, int] = (CAMERA_WIDTH, CAMERA_HEIGHT)
) -> None:
    """What a camera sends: no B-frames, a key frame every half second."""
    width, height = size
    camera = Demo(Options(width=width, height=height, realtime=False))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "15", "bf": "0", "tune": "zerolatency"}
        if codec == "libx265":
            stream.options = {"preset": "ultrafast", "x265-params": "keyint=15:bframes=0:log-level=none"}
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(camera.render(index), format="bgr24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def rtsp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspServer]:
    """A real RTSP server with a camera's clip, for as long as the tests run."""
    pytest.importorskip("aio_rtsp_toolkit", reason="aio-rtsp-toolkit is not installed: no RTSP server to test with")
    folder = tmp_path_factory.mktemp("camera")
    write_camera_clip(folder / "clip.mp4")
    server = RtspServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five pictures of different sizes and formats."""
    folder = tmp_path_factory.mktemp("photos")
    camera = Demo(Options(realtime=False))
    for index, (width, height, suffix) in enumerate(
        [(1280, 720, "jpg"), (640, 480, "png"), (300, 800, "bmp"), (417, 413, "png"), (64, 64, "webp")]
    ):
        picture = cv2.resize(camera.render(index * 60), (width, height))
        cv2.imwrite(str(folder / f"{index}.{suffix}"), picture)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is installed from an index."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    subprocess.run(argv, cwd=Path(__file__).parent.parent, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `edgeinfer ARGS` to its end, in an empty folder, and returns the finished process."""

    def run(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgeinfer", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def daemon_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `edgeinfer ARGS` in the background; ended with the test, however that goes."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeinfer", *args],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


@pytest.fixture
def ipc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A free IPC endpoint."""
    return f"ipc://{tmp_path_factory.mktemp('ipc')}/s"
