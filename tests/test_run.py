"""`edgeinfer run` as a user meets it: bad input, exit codes, signals, sinks, overload."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import psutil
import pytest
import yaml
from onnx import TensorProto, helper

from tests.conftest import CLIP_FRAMES, Cli
from tests.reference import MODEL

Start = Callable[..., "subprocess.Popen[str]"]
QUIET = ("--set", "publish=null")


def one_error_line(process: subprocess.CompletedProcess[str]) -> str:
    errors = [line for line in process.stderr.splitlines() if line.startswith("edgeinfer: error: ")]
    assert len(errors) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return errors[0]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--source", "none.mp4"], 66, "none.mp4: no such file"),
        (["--source", "text.mp4"], 66, "text.mp4: not a video"),
        (["--source", "empty.png"], 66, "empty.png: empty file"),
        (["--source", "empty"], 66, "empty: no images"),
        (["--source", "none*.jpg"], 66, "no file matches"),
        (["--camera", "63"], 66, "/dev/video63: no such camera"),
        (["--source", "foo://x"], 78, "no source of the kind 'foo'"),
        ([], 78, "no sources"),
        (["--camera", "x"], 64, "not a valid integer"),
        (["--sauce", "demo:"], 64, "No such option"),
        (["--source", "a=demo:", "--source", "a=demo:"], 64, "two sources are called a"),
        (["--source", "demo:", "--model", "yolo"], 78, "no model called 'yolo'"),
        (["--source", "demo:", "--model", "none.onnx"], 66, "none.onnx: no such file"),
        (["--source", "demo:", "--model", "text.onnx"], 66, "write one: edgeinfer models inspect text.onnx"),
        (["--source", "demo:", "--model", "carded.onnx"], 66, "no ONNX model"),
        (["--source", "demo:", "--backend", "tpu"], 78, "no backend called 'tpu'"),
        (["--source", "demo:", "--set", "backend.providers=[cuda]"], 69, "no execution provider 'cuda'"),
        (["--source", "demo:", "--config", "none.yaml"], 66, "none.yaml"),
        (["--source", "demo:", "--config", "text.mp4"], 78, "text.mp4"),
        (["--source", "demo:", "--bind", "tcp://0.0.0.0:1"], 78, "can be reached from other machines"),
        (["--source", "demo:", "--save", "none/x.mp4"], 66, "can't be written"),
        (["--source", "demo:", "--save", "x.avi"], 78, "sinks.video.path"),
        (["--source", "demo:", "--jsonl", "none/x"], 66, "sinks.jsonl.path"),
        (["--source", "demo:", "--set", "publish.port=1"], 78, "publish.port: unknown key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_and_its_exit_code(
    cli: Cli, tmp_path: Path, args: list[str], code: int, says: str
) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n")
    (tmp_path / "text.onnx").write_text("not a model\n")
    (tmp_path / "carded.onnx").write_text("not a model\n")
    shutil.copy(card_with(tmp_path, file="carded.onnx"), tmp_path / "carded.yaml")
    (tmp_path / "empty.png").touch()
    (tmp_path / "empty").mkdir()
    process = cli("run", "--bind", "tcp://127.0.0.1:*", *args)
    assert process.returncode == code, process.stderr
    assert says in one_error_line(process)


def card_with(folder: Path, **changes: Any) -> Path:
    """The vendored model's card with some keys changed."""
    source = Path(__file__).parent.parent / "edgeinfer" / "models" / "nanodet-g.yaml"
    data = yaml.safe_load(source.read_text())
    del data["sha256"]
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


@pytest.mark.slow
def test_without_the_runtime_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from edgeinfer.cli import main\nmain(['run', '--source', 'demo:'])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert process.returncode == 69
    assert "pip install 'edgeinfer[cpu]'" in one_error_line(process)


def test_one_bad_source_leaves_the_others_alone(cli: Cli, tmp_path: Path, clip: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n")
    process = cli("run", "--source", f"good={clip}", "--source", "bad=text.mp4", "--jsonl", "-", *QUIET)
    assert len(process.stdout.splitlines()) == CLIP_FRAMES
    assert process.returncode == 66
    assert "text.mp4: not a video" in one_error_line(process)


def test_one_bad_picture_is_counted_and_the_rest_published(cli: Cli, tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(photos, folder)
    (folder / "2b.png").write_bytes(b"")
    process = cli("run", "--source", f"p={folder}", "--jsonl", "-", *QUIET)
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["frame_id"] for line in lines] == [0, 1, 2, 4, 5]
    assert lines[-1]["dropped"] == 1
    assert process.returncode == 66
    assert "2b.png: empty file" in one_error_line(process)
    assert "1 unreadable" in process.stderr


@pytest.mark.parametrize("size", [(1, 1), (8000, 6000), (3, 4000)])
def test_pictures_of_any_size(cli: Cli, tmp_path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((size[1], size[0], 3), np.uint8))
    process = cli("run", "--source", "x.png", "--jsonl", "-", *QUIET)
    assert process.returncode == 0, process.stderr
    (line,) = (json.loads(text) for text in process.stdout.splitlines())
    assert (line["width"], line["height"]) == size


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"labels": ["a", "b"]}, 78, "output 'scores' has shape [-1, 3549, 80], expected [N, M, 2]"),
        ({"decoder": {"name": "boxes_scores", "options": {"boxes": "bxes"}}}, 78, "no output called 'bxes'"),
        ({"decoder": {"name": "yolo9000"}}, 78, "no decoder called 'yolo9000'"),
        ({"sha256": "0" * 64}, 78, "SHA-256"),
        ({"inpt": {}}, 78, "inpt: unknown key"),
        ({"max_batch": "many"}, 78, "max_batch: 'many' is not allowed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_card_that_does_not_fit(cli: Cli, tmp_path: Path, changes: dict[str, Any], code: int, says: str) -> None:
    card = card_with(tmp_path, **changes)
    process = cli("run", "--source", "demo:", "--model", str(MODEL), "--set", f"model.card={card}", *QUIET)
    assert process.returncode == code, process.stderr
    assert says in one_error_line(process)


def test_ones_own_model_with_a_drafted_card(cli: Cli, tmp_path: Path) -> None:
    """A network with a fixed batch of two that always sees one object in the middle."""
    write_constant_network(tmp_path / "own.onnx", batch=2)
    draft = cli("models", "inspect", "own.onnx", "--card")
    assert draft.returncode == 0, draft.stderr
    (tmp_path / "own.yaml").write_text(draft.stdout)
    process = cli("run", "--model", "own.onnx", "--source", "demo:", "--frames", "3", "--jsonl", "-", *QUIET)
    assert process.returncode == 0, process.stderr
    for line in map(json.loads, process.stdout.splitlines()):
        (found,) = line["detections"]
        assert found["label"] == "class1"
        assert found["box"] == pytest.approx([320, 0, 960, 720], abs=1)


def write_constant_network(path: Path, batch: int) -> None:
    boxes = np.tile(np.array([[[16, 14, 48, 50]]], np.float32), (batch, 1, 1))
    scores = np.tile(np.array([[[0.1, 0.9]]], np.float32), (batch, 1, 1))
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["b", "nothing"], ["boxes"]),
        helper.make_node("Add", ["s", "nothing"], ["scores"]),
    ]
    constants = [("b", boxes), ("s", scores), ("zero", np.array(0, np.float32))]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 64, 64])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 1, 2]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_frames_ends_each_source_after_so_many_results(cli: Cli, clip: Path) -> None:
    process = cli("run", "--source", f"v={clip}", "--source", "d=demo:", "--frames", "7", "--jsonl", "-", *QUIET)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    for source in ("v", "d"):
        assert [line["seq"] for line in lines if line["source"] == source] == list(range(7))


def test_max_fps_leaves_frames_out_and_counts_them(cli: Cli, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"sources: {{v: {{uri: '{clip}', max_fps: 10}}}}\npublish: null\n")
    process = cli("run", "--config", "c.yaml", "--jsonl", "-")
    frames = [json.loads(line)["frame_id"] for line in process.stdout.splitlines()]
    assert frames == list(range(0, CLIP_FRAMES, 3))
    assert "40 max_fps" in process.stderr


@pytest.mark.long
def test_annotated_video_has_every_frame(cli: Cli, clip: Path, tmp_path: Path) -> None:
    process = cli("run", "--source", f"a={clip}", "--source", f"b={clip}", "--save", "out.mp4", *QUIET)
    assert process.returncode == 0, process.stderr
    original = cv2.VideoCapture(str(clip)).read()[1]
    for name in ("out-a.mp4", "out-b.mp4"):
        reader = cv2.VideoCapture(str(tmp_path / name))
        pictures = []
        while (answer := reader.read())[0]:
            pictures.append(answer[1])
        assert len(pictures) == CLIP_FRAMES
        drawn = np.abs(pictures[0].astype(int) - original.astype(int)).max(axis=2) > 100
        assert drawn.sum() > 200, "the boxes are missing"


def test_a_full_disk_ends_the_file_and_not_the_run(cli: Cli, clip: Path) -> None:
    process = cli("run", "--source", f"v={clip}", "--jsonl", "/dev/full", *QUIET)
    assert process.returncode == 75
    assert "No space left on device" in one_error_line(process)
    assert f"{CLIP_FRAMES}" in process.stderr


def test_a_reader_that_goes_away_ends_the_run_quietly(daemon_process: Start) -> None:
    process = daemon_process("run", "--source", "demo:", "--jsonl", "-", *QUIET)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["seq"] == 0
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert "error" not in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_summary(daemon_process: Start, number: int) -> None:
    process = daemon_process("run", "--source", "demo:", "--jsonl", "-", *QUIET)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = the_rest(process)
    assert process.returncode == 0, err
    assert "capture → publish" in err
    assert all(json.loads(line) for line in out.splitlines()), "a line was cut"
    assert not psutil.pid_exists(process.pid)


def the_rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What is left of both outputs; `communicate` would forget what `readline` has read ahead."""
    assert process.stdout is not None
    out = process.stdout.read()
    return out, process.communicate(timeout=20)[1]


HUNG_SOURCE = """
from msgspec import Struct
from edgeinfer.sources.demo import Demo, Options

class Hung(Demo):
    def read(self):
        if self._index == 3:
            time.sleep(3600)
        return super().read()

def open(uri, options):
    return Hung(options)
"""


def test_a_source_that_hangs_can_not_keep_the_run_from_ending(daemon_process: Start, tmp_path: Path) -> None:
    (tmp_path / "hung").mkdir()
    (tmp_path / "hung" / "__init__.py").touch()
    (tmp_path / "hung" / "source.py").write_text(HUNG_SOURCE)
    process = daemon_process("run", "--source", "h=hung.source:", "--source", "d=demo:", "--jsonl", "-", *QUIET)
    assert process.stdout is not None
    seen = [json.loads(process.stdout.readline())["source"] for _ in range(40)]
    assert seen.count("h") >= 1, (
        "it gives three frames, and three again when it is opened again; live, some may be dropped"
    )
    assert seen.count("d") >= 20, "a hung source holds the other one up"
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err


DECODING_SOURCE = """
import os
import cv2, numpy as np
from msgspec import Struct

RECONNECT = True

class Options(Struct):
    pass

class Decoding:
    live, fps = True, 0.0

    def read(self):
        coded = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8))[1]
        os.write(1, b"decoding\\n")
        while True:
            cv2.imdecode(coded, cv2.IMREAD_COLOR)

    def close(self):
        pass

def open(uri, options):
    return Decoding()
"""


def test_the_end_is_clean_whatever_a_decoder_is_doing(daemon_process: Start, tmp_path: Path) -> None:
    """C++ in another thread does not survive the interpreter's end."""
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "__init__.py").touch()
    (tmp_path / "busy" / "source.py").write_text(DECODING_SOURCE)
    sources = [arg for name in "abcdef" for arg in ("--source", f"{name}=busy.source:")]
    process = daemon_process("run", *sources, "--jsonl", "-", *QUIET)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in "abcdef"] == ["decoding\n"] * 6
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


@pytest.mark.alone
def test_overload_is_shared_fairly_and_every_frame_is_accounted_for(daemon_process: Start) -> None:
    sources = [arg for name in "abcd" for arg in ("--source", f"{name}=demo:", "--set", f"sources.{name}.fps=60")]
    process = daemon_process(
        "run", *sources, "--jsonl", "-", "--set", 'sinks.jsonl.kinds=["status", "detections"]', *QUIET
    )
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    overloaded: set[str] = set()
    while not overloaded >= set("abcd"):
        lines.append(json.loads(process.stdout.readline()))
        if lines[-1]["kind"] == "status" and lines[-1]["inferred"] >= 20 and lines[-1]["dropped"] >= 20:
            overloaded.add(lines[-1]["source"])
    process.terminate()
    out, _ = the_rest(process)  # what a second is too short for stays in flight
    lines += [json.loads(line) for line in out.splitlines()]
    last = {line["source"]: line for line in lines if line["kind"] == "status"}
    for status in (line for line in lines if line["kind"] == "status"):
        assert status["captured"] == status["inferred"] + status["dropped"] + status["in_flight"]
    whole = last.pop("_daemon")
    inferred = {name: status["inferred"] for name, status in last.items()}
    assert whole["inferred"] == sum(inferred.values())
    assert set(inferred) == set("abcd")
    assert max(inferred.values()) - min(inferred.values()) <= max(2, 0.1 * max(inferred.values()))
    for name in "abcd":
        seqs = [line["seq"] for line in lines if line["kind"] == "detections" and line["source"] == name]
        assert seqs == list(range(inferred[name]))


@pytest.mark.long
def test_memory_stays_within_bounds(daemon_process: Start) -> None:
    process = daemon_process("run", "--source", "demo:", "--jsonl", "-", *QUIET)
    assert process.stdout is not None
    reader = psutil.Process(process.pid)
    sizes = []
    for line in process.stdout:
        seq = json.loads(line)["seq"]
        if seq % 100 == 99:
            sizes.append(reader.memory_info().rss)
        if len(sizes) == 8:
            break
    assert max(sizes) < 300e6
    assert sizes[-1] - sizes[2] < 10e6, f"it grows: {sizes}"


DEAD_DRIVER = """
import ctypes
from edgeinfer.sources.demo import Demo, Options

class Dead(Demo):
    def read(self):
        if self._index == 3:
            ctypes.CDLL(None).pause()
        return super().read()

def open(uri, options):
    return Dead(options)
"""


@pytest.mark.long
def test_a_driver_that_swallows_threads_ends_the_process_once_no_other_source_is_left(
    daemon_process: Start, tmp_path: Path
) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "__init__.py").touch()
    (tmp_path / "dead" / "source.py").write_text(DEAD_DRIVER)
    limits = ("--set", "sources.h.stall_s=0.3", "--set", "sources.h.timeout_s=0.5", "--set", "sources.d.frames=1200")
    process = daemon_process(
        "run", "--source", "h=dead.source:", "--source", "d=demo:", "--jsonl", "-", *limits, *QUIET
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 70, err
    assert "calls into cameras' drivers never came back (h)" in err
    lines = [json.loads(line) for line in out.splitlines()]
    others = [line for line in lines if line["source"] == "d"]
    assert others[-1]["frame_id"] > 1100, "the other one went on to its end"
    assert max(np.diff([line["t_publish_mono_ns"] for line in others])) < 3e9, "it waited for the dead one"
    assert [line["frame_id"] for line in lines if line["source"] == "h"] == sorted(
        {line["frame_id"] for line in lines if line["source"] == "h"}
    )


def test_a_camera_in_a_file_is_waited_for(daemon_process: Start, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"sources: {{c: 'v4l2://{tmp_path}/video63', d: 'demo:'}}\npublish: null\n")
    kinds = ("--set", "sinks.jsonl.kinds=[status]")
    process = daemon_process("run", "--config", "c.yaml", "--jsonl", "-", *kinds)
    assert process.stdout is not None
    for line in map(json.loads, process.stdout):
        if line["source"] == "c" and line["reconnects"] >= 2:
            break
    assert line["state"] == "reconnecting"
    assert line["reason"]["code"] == "gone"
    assert "video63: no such camera" in line["reason"]["text"]
    process.terminate()
    _, err = the_rest(process)
    assert process.returncode == 0, err
    assert err.count("no such camera") == 1


STEPPED = """
import time
from pathlib import Path
real = time.time_ns
time.time_ns = lambda: real() + int(Path("step").read_text()) * 10**9
time.time = lambda: time.time_ns() / 1e9
from edgeinfer.cli import main
main({args!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [3600, pytest.param(-3600, marks=pytest.mark.long)])
def test_setting_the_wall_clock_is_told_and_disturbs_nobody(tmp_path: Path, step_s: int) -> None:
    """The program's clock is set, not the machine's."""
    (tmp_path / "step").write_text("0")
    args = ["run", "--source", "d=demo:", "--jsonl", "-", "--set", "sinks.jsonl.kinds=[status]", *QUIET]
    command = [sys.executable, "-c", STEPPED.format(args=args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    messages, later = [], 0
    for line in map(json.loads, process.stdout):
        messages.append(line)
        if line["source"] == "d" and line["inferred"] > 20:
            (tmp_path / "step.new").write_text(str(step_s))
            (tmp_path / "step.new").replace(tmp_path / "step")
        later += "clock_step_s" in line
        if later == 3:
            break
    process.terminate()
    _, err = the_rest(process)
    assert process.returncode == 0, err
    assert messages[-1]["clock_step_s"] == pytest.approx(step_s, abs=5)
    assert err.count("the wall clock was set") == 1
    last = [message for message in messages if message["source"] == "d"][-1]
    assert (last["stalls"], last["reconnects"], last["dropped_by_reason"].get("stale", 0)) == (0, 0, 0)
