"""What an unfriendly world does: hostile names, paths, files and peers. Each gets one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from edgeinfer.client import Subscriber
from edgeinfer.commands.listen import raw_line
from edgeinfer.config.settings import load_config
from edgeinfer.decoders import boxes_scores
from edgeinfer.errors import ConfigError, EdgeinferError, InputError
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import CaptureThread, Job
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.flow.outbox import DEPTH, Outbox
from edgeinfer.guard.redaction import redact
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.messages import DetectionsMessage
from edgeinfer.sinks import zmq
from edgeinfer.sources import images, video
from edgeinfer.types import Letterbox
from tests.conftest import CLIP_FRAMES, Cli
from tests.test_messages import example
from tests.test_reload import network
from tests.test_run import one_error_line, write_constant_network

Start = Callable[..., "subprocess.Popen[str]"]
QUIET = ("--set", "publish=null")


@pytest.mark.slow
def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    # With CI in its environment ONNX Runtime reports nothing anyway.
    environment = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI")}
    command = [sys.executable, "-m", "edgeinfer", "check", "c.yaml"]
    (tmp_path / "c.yaml").write_text("sources: {a: 'demo:'}\nbackend: onnxruntime\n")
    subprocess.run(command, env={**environment, "HOME": str(tmp_path)}, cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


@pytest.mark.parametrize("name", ["notes.txt", "link"])
def test_a_file_is_not_replaced_by_a_socket(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to("notes.txt")
    with pytest.raises(ConfigError, match="no socket"):
        zmq.open(zmq.Options(bind=f"ipc://{tmp_path}/{name}"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "s.lock").symlink_to("notes.txt")
    with pytest.raises(ConfigError):
        zmq.open(zmq.Options(bind=f"ipc://{tmp_path}/s"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("endpoint", ["ipc://", "ipc:///tmp/a\0b"])
def test_an_ipc_endpoint_without_a_path(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="names no path"):
        zmq.open(zmq.Options(bind=endpoint))


def test_a_video_whose_name_is_no_text(tmp_path: Path, clip: Path) -> None:
    name = os.fsencode(tmp_path) + b"/bad\xff.mp4"
    Path(os.fsdecode(name)).write_bytes(clip.read_bytes())
    with pytest.raises(InputError, match="not valid text"):
        video.open(os.fsdecode(name), video.Options())


@pytest.mark.parametrize("kind", [EdgeinferError, UnreadableItem])
def test_every_error_can_be_published(kind: type[Exception]) -> None:
    text = str(kind(f"a\udcff b\nc {'x' * 10_000} rtsp://user:secret@host/x"))
    assert "\n" not in text
    assert len(text.encode()) < 5000
    assert "secret" not in text


@pytest.mark.parametrize("url", ["rtsp://u:p/ss@host/x", "rtsp://u:p@ss@host/x", "rtsp://u:p?ss@host/x?token=pass"])
def test_passwords_with_odd_characters_are_not_shown(url: str) -> None:
    shown = redact(f"can't open {url}: timeout")
    assert "ss@" not in shown.replace("***@", "")
    assert "token=pass" not in shown


def test_a_password_is_not_shown_where_a_value_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "sources: ['rtsp://admin:hunter2secretlonglonglong@camera.example/main/profile']\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert "hunter2" not in str(caught.value)


def test_no_traceback_shows_a_password(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: {a: ['rtsp://admin:hunter2@cam/x']}\n")
    process = cli("check", "c.yaml", "--verbose")
    assert process.returncode == 78
    assert "Traceback" in process.stderr
    assert "hunter2" not in process.stderr


def test_a_loop_that_is_thinned_out_goes_on(clip: Path) -> None:
    mailbox, ledger = Mailbox(), Ledger(time.monotonic_ns)
    job = Job("a", lambda: video.open(str(clip), video.Options(loop=True)), ledger, mailbox, max_fps=10.0, limit=65)
    thread = CaptureThread(job)
    thread.start()
    frames = []
    while thread.is_alive() or len(mailbox):
        for frame in mailbox.take(1, 0.05):
            frames.append(frame)
            ledger.infer()
    assert len(frames) == 65  # 20 of each round of 60
    assert frames[-1].frame_id < 65 * 3 + 5


def test_a_loop_without_a_good_picture_ends(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    source = images.open(str(tmp_path), images.Options(loop=True))
    with pytest.raises(UnreadableItem):
        source.read()
    with pytest.raises(InputError, match="none of 1 pictures"):
        source.read()


def test_max_fps_needs_a_rate(cli: Cli, photos: Path) -> None:
    process = cli("run", "--source", f"p={photos}", "--set", "sources.p.max_fps=5", *QUIET)
    assert process.returncode == 78
    assert "give fps too" in one_error_line(process)
    process = cli("run", "--source", f"p={photos}", "--set", "sources.p.max_fps=5", "--set", "sources.p.fps=10", *QUIET)
    assert process.returncode == 0
    assert "2 max_fps" in process.stderr


def test_boxes_that_are_no_numbers_are_left_out() -> None:
    boxes = np.array([[[np.nan, 0, 1, 1], [0, 0, np.inf, 1], [0, 0, 5, 5]]], np.float32)
    scores = np.full((1, 3, 1), 0.9, np.float32)
    decoder = boxes_scores.open(boxes_scores.Options())
    (found,) = decoder.decode({"boxes": boxes, "scores": scores}, [Letterbox(10, 10, 1, 1, 0, 0)])
    assert found.boxes.tolist() == [[0, 0, 5, 5]]


def test_outputs_that_do_not_belong_together() -> None:
    decoder = boxes_scores.open(boxes_scores.Options())
    with pytest.raises(ConfigError, match="do the card's labels"):
        decoder.decode({"boxes": np.zeros((1, 3, 4)), "scores": np.zeros((1, 2, 1))}, [Letterbox(9, 9, 1, 1, 0, 0)])


@pytest.mark.parametrize("uri", ["x" * 5000, "a\0b.mp4"])
def test_names_that_no_file_can_have(uri: str) -> None:
    with pytest.raises(InputError):
        video.open(uri, video.Options())
    with pytest.raises(InputError):
        images.open(f"{uri}.jpg", images.Options())


def test_what_the_command_line_names_replaces_what_the_file_says(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: {demo: {uri: '0', fourcc: MJPG, wait: false}}\npublish: null\n")
    named = cli("run", "--config", "c.yaml", "--source", "demo=demo:", "--frames", "2", "--jsonl", "-")
    assert named.returncode == 0, named.stderr
    added = cli("run", "--config", "c.yaml", "--source", "demo:", "--frames", "2", "--bind", "tcp://127.0.0.1:*")
    assert "/dev/video0" in added.stderr
    assert "demo-2" in added.stderr


def test_sources_that_fail_are_all_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("x")
    process = cli("run", "--source", "a=none.mp4", "--source", "b=text.mp4", *QUIET)
    assert process.returncode == 66
    assert "none.mp4" in process.stderr
    assert "text.mp4" in process.stderr


def test_a_signal_ends_with_zero_whatever_failed_before(daemon_process: Start) -> None:
    process = daemon_process("run", "--source", "bad=none.mp4", "--source", "d=demo:", "--jsonl", "-", *QUIET)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "none.mp4" in err


def test_a_named_pipe_without_a_reader(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = cli("run", "--source", "demo:", "--jsonl", "pipe", *QUIET)
    assert process.returncode == 66
    assert "sinks.jsonl.path" in one_error_line(process)


def test_a_reader_that_stops_holds_up_nobody_else(daemon_process: Start, tmp_path: Path, ipc: str) -> None:
    quick = ("--model", network(tmp_path, "one", ["thing"], [16, 14, 48, 50]), "--set", "sources.demo.fps=200")
    process = daemon_process("run", "--source", "demo:", "--jsonl", "-", "--bind", ipc, *quick)
    with Subscriber(ipc, timeout_s=30) as subscriber:
        seqs = []
        for message in subscriber:  # nobody reads the pipe, which holds some hundred lines
            assert isinstance(message, DetectionsMessage)
            seqs.append(message.seq)
            if len(seqs) == 600:
                break
    assert len(seqs) == 600
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


class Stuck:
    """A sink whose reader has stopped reading."""

    blocks = True
    pictures = False

    def __init__(self) -> None:
        self.go = threading.Event()
        self.written = 0

    def write(self, message: object, result: object) -> None:
        self.go.wait(30)
        self.written += 1

    def service(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_a_stuck_sink_loses_is_counted() -> None:
    sink = Stuck()
    outbox = Outbox("x", sink)
    for _ in range(DEPTH + 50):
        outbox.write(example("status"), None)
    assert outbox.lost >= 49
    assert outbox.lost + outbox.waiting == DEPTH + 50
    sink.go.set()
    outbox.close()
    assert sink.written + outbox.lost == DEPTH + 50
    assert outbox.waiting == 0


@pytest.mark.slow
def test_closed_standard_streams(tmp_path: Path, clip: Path) -> None:
    command = f"{sys.executable} -m edgeinfer run --source {clip} --jsonl out.jsonl --set publish=null <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=False).returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == CLIP_FRAMES


def test_a_video_without_a_single_frame(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        packet = stream.encode(av.VideoFrame(64, 64, "yuv420p"))
        container.mux(packet)
        container.mux(stream.encode(None))
    data = path.read_bytes()
    place = data.index(b"mdat") + 4
    path.write_bytes(data[:place] + b"\0" * 600 + data[place + 600 :])
    with pytest.raises(InputError):  # noqa: PT012 (opening may already find it damaged)
        source = video.open(str(path), video.Options())
        source.read()


def test_listen_keeps_fields_that_it_does_not_know() -> None:
    payload = b'{"v":1,"kind":"status","later":[1,2]}'
    assert json.loads(raw_line(payload)) == {"v": 1, "kind": "status", "later": [1, 2]}


def test_a_device_file_is_no_config(cli: Cli) -> None:
    process = cli("check", "/dev/zero")
    assert process.returncode == 78
    assert "larger than 256 KiB" in one_error_line(process)


def test_a_network_with_an_odd_file_name_gets_a_usable_card(cli: Cli, tmp_path: Path) -> None:
    write_constant_network(tmp_path / "my model!.onnx", batch=1)
    (tmp_path / "my model!.yaml").write_text(cli("models", "inspect", "my model!.onnx", "--card").stdout)
    process = cli("run", "--model", "my model!.onnx", "--source", "demo:", "--frames", "1", *QUIET)
    assert process.returncode == 0, process.stderr
