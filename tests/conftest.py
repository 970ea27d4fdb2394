"""What many tests need: real clips and pictures, the command line as a process, free endpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import pytest

from edgeinfer.sources.demo import Demo, Options

CLIP_FRAMES = 60
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that starts the program as a process is slow: together they take minutes."""
    for item in items:
        if {"cli", "daemon_process"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _state_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Daemons that tests kill are remembered in a folder of the tests, not in that of the user."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


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
