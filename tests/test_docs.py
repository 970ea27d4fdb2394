"""The README and docs: their commands run, their code works, their links and generated parts are true."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeinfer.cli import _command_names
from edgeinfer.client import Subscriber
from edgeinfer.commands._options import build_config
from edgeinfer.transport.keys import allow, generate, read_public, write_pair
from tests.conftest import Cli, as_generated
from tests.test_run import write_constant_network
from tests.test_zmq import wait_for

Start = Callable[..., "subprocess.Popen[str]"]
ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
TEXT = {page: page.read_text() for page in PAGES}
COMMANDS = sorted(
    {line.removeprefix("$ ") for text in TEXT.values() for line in text.splitlines() if line.startswith("$ ")}
)
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
    (tmp_path / "mycameras").mkdir()
    (tmp_path / "mycameras" / "noise.py").write_text(python_blocks(ROOT / "docs" / "extending.md")[0])
    return tmp_path


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("edgeinfer") and c not in HARDWARE])
def test_documented_commands_run(cli: Cli, folder: Path, command: str, daemon_process: Start, ipc: str) -> None:
    args = shlex.split(command)[1:]
    args = ["http.bind=127.0.0.1:0" if arg.startswith("http.bind") else arg for arg in args]  # any free port
    if args[0] == "run":
        args += ["--frames", "3"]
        args += [] if "--bind" in args else ["--bind", ipc]
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
    process = cli(*args)
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


@as_generated
def test_what_is_generated_is_current() -> None:
    subprocess.run([sys.executable, "scripts/generate.py", "--check"], cwd=ROOT, check=True)
