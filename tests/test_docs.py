"""The README and docs: their commands run, their code works, their links and generated parts are true."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeinfer import codes, messages
from edgeinfer.cli import _command_names
from edgeinfer.client import Subscriber
from edgeinfer.commands._options import build_config
from edgeinfer.config import plugins
from edgeinfer.config.card import DecoderCard, InputCard, ModelCard, Thresholds
from edgeinfer.config.settings import _File
from edgeinfer.flow import outbox, publisher
from edgeinfer.transport.keys import allow, generate, read_public, write_pair
from tests.conftest import Cli
from tests.test_run import QUIET, write_constant_network
from tests.test_zmq import wait_for

Start = Callable[..., "subprocess.Popen[str]"]
ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
TEXT = {page: page.read_text() for page in PAGES}
COMMANDS = sorted(
    {line.removeprefix("$ ") for text in TEXT.values() for line in text.splitlines() if line.startswith("$ ")}
)
PACKAGE = ROOT / "edgeinfer"
ARCHITECTURE = TEXT[ROOT / "docs" / "architecture.md"]
EXTENDING = TEXT[ROOT / "docs" / "extending.md"]
HARDWARE = {"edgeinfer run --camera 0", "edgeinfer service status"}
"""Need a camera, or a machine that systemd runs; `tests/test_service_systemd.py` makes one for the second."""


@pytest.fixture
def folder(tmp_path: Path, clip: Path, photos: Path) -> Path:
    """A folder with everything that the documentation's commands name."""
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(clip, tmp_path / "clip.mp4")
    shutil.copytree(photos, tmp_path / "photos")
    write_constant_network(tmp_path / "my.onnx", batch=1)
    for name in ("server", "laptop"):
        write_pair(generate(), tmp_path / name)
    allow(tmp_path / "clients", read_public(str(tmp_path / "laptop.pub")))
    for name, code in examples().items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(code)
    return tmp_path


def examples() -> dict[str, str]:
    """The plugins of the page on extending: file name → code. The name stands in the sentence before the code."""
    found = re.findall(r"^`(my\w+/\w+\.py)`[^`]+```python\n(.*?)^```", EXTENDING, re.MULTILINE | re.DOTALL)
    return dict(found)


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.long
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("edgeinfer") and c not in HARDWARE])
def test_documented_commands_run(cli: Cli, folder: Path, command: str, daemon_process: Start, ipc: str) -> None:
    args = shlex.split(command)[1:]
    args = ["http.bind=127.0.0.1:0" if arg.startswith("http.bind") else arg for arg in args]  # any free port
    if args[0] == "run":
        args += ["--frames", "3"]
        args += [] if "--bind" in args else ["--bind", ipc]
        args += ["--set", "http.bind=127.0.0.1:0"] if "--web" in args else []
    if args[0] == "bench":
        args += ["--rounds", "1", "--frames", "60"]
    if args[0] == "reload":
        daemon_process("run", "--config", "configs/demo.yaml", "--bind", ipc)
        with Subscriber(ipc) as subscriber:
            assert subscriber.receive(60)
        args += [ipc]
    if args[:2] == ["keys", "new"]:
        args[2] += "-of-mine"  # the other commands need those that are there
    if args[0] in ("listen", "status", "top"):
        secured = "--server-key" in args
        curve = ["--set", "publish.curve={secret_key: server.key, allow: clients}"] if secured else []
        daemon_process("run", "--source", "demo:", "--bind", ipc, *curve)
        args = [args[0], ipc, *(arg for arg in args[1:] if not arg.startswith("tcp://"))]
        args += ["--count", "2"] if args[0] == "listen" else []
        wait_for(lambda: cli("status", ipc, *args[2:6] if secured else ()).returncode == 0, "the daemon")
    if "my.onnx" in args and args[0] == "run":
        draft = cli("models", "inspect", "my.onnx", "--card")
        (folder / "my.yaml").write_text(draft.stdout)
    process = cli(*args, timeout=300 if args[0] == "bench" else 60)  # a bench is some twenty runs
    assert process.returncode == 0, process.stderr


def test_documented_commands_that_need_hardware_are_at_least_understood() -> None:
    assert set(COMMANDS) >= HARDWARE
    assert build_config(None, [0], [], []).sources["camera0"].uri.text == "v4l2:///dev/video0"


def test_documented_scripts_exist() -> None:
    for name in {
        match
        for text in TEXT.values()
        for match in re.findall(r"(?<![\w/])(?:\./)?((?:scripts|\.ci)/[\w-]+(?:\.py)?)", text)
    }:
        assert (ROOT / name).exists(), name


def test_every_command_is_documented() -> None:
    for name in _command_names():
        assert any(f"edgeinfer {name}" in text for text in TEXT.values()), name


def test_there_is_an_example_of_every_kind_of_plugin() -> None:
    assert [name.partition("/")[0] for name in examples()] == ["mycameras", "mysinks", "mydecoders", "mybackends"]
    assert list(examples().values()) == python_blocks(ROOT / "docs" / "extending.md")


def test_the_example_of_a_source_keeps_the_contract(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    module = plugins.load("sources", "mycameras.noise")
    source = module.open("", plugins.options(module, {"width": 64, "height": 48}, ""))
    captures = [source.read() for _ in range(3)]
    assert all(capture.image.shape == (48, 64, 3) and not capture.image.flags.writeable for capture in captures)
    assert len({capture.image.tobytes() for capture in captures}) == 3


@pytest.mark.slow
def test_the_example_of_a_sink_counts_what_was_found(cli: Cli, folder: Path) -> None:
    process = cli("run", "--source", "clip.mp4", "--set", "sinks={mysinks.count: {path: counts.json}}", *QUIET)
    assert process.returncode == 0, process.stderr
    assert json.loads((folder / "counts.json").read_text())["person"] > 0


@pytest.mark.slow
def test_the_example_of_a_backend_finds_what_ours_finds(cli: Cli, folder: Path) -> None:
    args = ("run", "--source", "clip.mp4", "--frames", "5", "--jsonl", "-", *QUIET)
    runs = [cli(*args, "--backend", backend) for backend in ("mybackends.opencv", "onnxruntime")]
    theirs, ours = ([json.loads(line) for line in run.stdout.splitlines()] for run in runs)
    assert {message["backend"] for message in theirs} == {"opencv-cpu"}
    labels = [[[found["label"] for found in message["detections"]] for message in run] for run in (theirs, ours)]
    assert labels[0] == labels[1]
    assert any(labels[0])


@pytest.mark.slow
def test_the_example_of_a_decoder_reads_its_network(cli: Cli, folder: Path) -> None:
    write_rows_network(folder / "rows.onnx", [[16, 14, 48, 50, 0.9, 1], [0, 0, 8, 8, 0.1, 0]])
    card = {
        "name": "rows",
        "file": "rows.onnx",
        "input": {"name": "x", "width": 64, "height": 64, "color": "bgr", "mean": [0, 0, 0], "std": [1, 1, 1]},
        "decoder": {"name": "mydecoders.rows"},
        "labels": ["cat", "dog"],
    }
    (folder / "rows.yaml").write_text(json.dumps(card))
    process = cli("run", "--source", "photos/4.webp", "--model", "rows.onnx", "--jsonl", "-", *QUIET)
    assert process.returncode == 0, process.stderr
    (message,) = map(json.loads, process.stdout.splitlines())
    (found,) = message["detections"]
    assert (found["label"], found["box"]) == ("dog", [16, 14, 48, 50])


def write_rows_network(path: Path, rows: list[list[float]]) -> None:
    """A network that finds the same in every picture: one output, [1, M, 6]."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["found", "nothing"], ["rows"]),
    ]
    constants = {"zero": np.array(0, np.float32), "found": np.array([rows], np.float32)}
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, len(rows), 6])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.mark.parametrize("block", range(2))
def test_the_subscribers_of_the_readme(daemon_process: Start, tmp_path: Path, ipc: str, block: int) -> None:
    code = python_blocks(ROOT / "README.md")[block]
    assert block == 1 or len(code.splitlines()) == 6
    code = code.replace("tcp://127.0.0.1:5555", ipc)  # the default port may be in use where the tests run
    daemon_process("run", "--source", "demo:", "--bind", ipc)
    reader = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert reader.stdout is not None
    lines = [reader.stdout.readline() for _ in range(5)]
    reader.kill()
    reader.communicate()
    assert all("person" in line for line in lines)


def test_the_yaml_of_the_readme_is_a_shipped_config() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", TEXT[ROOT / "README.md"], re.MULTILINE | re.DOTALL)
    shipped = (ROOT / "configs" / "two-cameras.yaml").read_text()
    assert set(block.splitlines()) <= set(shipped.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_code_names_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT[page]):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for path in re.findall(r"`((?:edgeinfer|tests|docs|configs|systemd)/[\w/.-]+\.\w+)`", TEXT[page]):
        assert (ROOT / path).exists(), path


def test_the_page_on_architecture_names_what_there_is() -> None:
    named = {name for name in re.findall(r"`(\w[\w./-]*)`", ARCHITECTURE) if "/" in name or name.endswith(".py")}
    assert len(named) > 30
    for name in named:
        assert (PACKAGE / name).exists() or (ROOT / name).exists(), name
    for folder in {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}:
        assert f"{folder.relative_to(PACKAGE)}/" in named, folder


def test_the_page_on_architecture_names_every_thread_and_queue() -> None:
    _, diagram, _ = ARCHITECTURE.partition("## Threads")[2].split("```\n", 2)
    names = {name for path in PACKAGE.rglob("*.py") for name in thread_names(path)}
    assert len(names) >= 8
    for name in names:
        assert re.search(rf"(?:^|►) *{name}", diagram, re.MULTILINE), name
    assert f"queue of {publisher.QUEUE_DEPTH} results" in diagram
    assert f"outbox of {outbox.DEPTH} messages" in diagram
    assert f"may block, {outbox.PICTURES} with pictures" in diagram


def thread_names(path: Path) -> Iterator[str]:
    """What the threads of a file are called, as far as that is written there: of `read:{source}` the part before."""
    for node in ast.walk(ast.parse(path.read_text())):
        for call in calls_that_name_a_thread(node):
            for value in (*call.args, *(item.value for item in call.keywords if item.arg == "name")):
                text = value.values[0] if isinstance(value, ast.JoinedStr) else value
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.value


def calls_that_name_a_thread(node: ast.AST) -> Iterator[ast.Call]:
    if isinstance(node, ast.ClassDef) and {"threading.Thread", "Stage"} & set(map(ast.unparse, node.bases)):
        found = [child for child in ast.walk(node) if isinstance(child, ast.Call)]
        yield from (call for call in found if ast.unparse(call.func) == "super().__init__")
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "threading.Thread":
        yield node


def test_every_key_of_the_configuration_is_documented() -> None:
    page = TEXT[ROOT / "docs" / "configuration.md"]
    first, _, rest = page.partition("## ")
    for field in msgspec.structs.fields(_File):
        assert f"| `{field.encode_name}` |" in first, field.encode_name
    for kind in get_args(plugins.Kind):
        for name in plugins.names(kind):
            section = rest.partition(f"## {kind[:-1].capitalize()} `{name}`\n")[2].partition("\n## ")[0]
            for field in msgspec.structs.fields(plugins.load(kind, name).Options):
                assert f"| `{field.encode_name}` |" in section, f"{kind} {name} {field.encode_name}"


def test_every_key_of_a_model_card_is_documented() -> None:
    page = TEXT[ROOT / "docs" / "models.md"]
    tables: dict[str, type[msgspec.Struct]] = {
        "": ModelCard,
        "input.": InputCard,
        "decoder.": DecoderCard,
        "thresholds.": Thresholds,
    }
    for prefix, struct in tables.items():
        for field in msgspec.structs.fields(struct):
            name = field.encode_name
            assert any(f"`{text}" in page for text in (f"{name}`", f"{prefix}{name}`", f"{name}.")), f"{prefix}{name}"


def test_every_field_of_a_message_is_documented_with_its_meaning() -> None:
    page = TEXT[ROOT / "docs" / "messages.md"]
    structs = [value for value in vars(messages).values() if isinstance(value, type) and is_struct(value)]
    assert len(structs) >= 10
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            assert re.search(rf"^\| `{field.encode_name}` \|[^|]+\| \w.*\|$", page, re.MULTILINE), field.encode_name


def is_struct(value: type) -> bool:
    return issubclass(value, msgspec.Struct) and value.__module__ == messages.__name__


def test_every_code_is_documented() -> None:
    everything = "\n".join(TEXT.values())
    tables = (codes.STATES, codes.DROP_REASONS, codes.SOURCE_REASONS, codes.NEWS, codes.HEALTH, codes.READINESS)
    for code in {str(code) for table in (*tables, codes.CRASHES, codes.EXIT_CODES) for code in table}:
        assert f"| `{code}` |" in everything, code


def test_what_is_generated_is_current() -> None:
    subprocess.run([sys.executable, "scripts/generate.py", "--check"], cwd=ROOT, check=True)
