"""jetson-stats: what it says is one more reading, and whatever is wrong with it is a reason and never an error."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.environment import jtop, live, probe
from edgeinfer.environment.facts import Environment, Fact, Fault, Reading
from edgeinfer.environment.rules import find_problems
from edgeinfer.environment.tree import Tree
from tests.environment.test_live import machine

ROOT = Path(__file__).parents[2]
HARDWARE = {
    "Model": "NVIDIA Jetson Orin Nano Developer Kit",
    "P-Number": "p3767-0005",
    "SoC": "tegra234",
    "CUDA Arch BIN": "8.7",
    "L4T": "36.4.7",
    "Jetpack": "6.2.1",
}
ANSWER = {"version": "7.2.2", "hardware": HARDWARE, "power_mode": "15W"}
STAND_IN = '''
__version__ = "7.2.2"

class jtop:
    """The public interface, as its documentation describes it."""

    board = {"hardware": HARDWARE | {"Module": "", "Serial Number": "1424"}}
    nvpmodel = "15W"
    gpu = {"gpu": {"status": {"load": 43.7}, "freq": {"cur": 612000}}}
    temperature = {"cpu": {"temp": 61.5, "online": True}, "cv0": {"temp": -256, "online": False}}
    power = {
        "rail": {"VDD_SOC": {"power": 998, "online": True}, "off": {"power": 0, "online": False}},
        "tot": {"power": 3580, "name": "VDD_IN"},
    }

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def ok(self):
        return True
'''.replace("HARDWARE", repr(HARDWARE))
SAID = {
    "version": "7.2.2",
    "hardware": {**HARDWARE, "Serial Number": "1424"},
    "power_mode": "15W",
    "gpu_load": 0.437,
    "gpu_hz": 612_000_000,
    "temperatures_c": {"cpu": 61.5},
    "power_mw": {"VDD_SOC": 998, "VDD_IN": 3580},
}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """It is installed, and its socket is there."""
    monkeypatch.setattr(jtop, "installed", lambda: True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    return tmp_path / "s"


def runs(output: live.Output | OSError) -> live.Run:
    def run(command: list[str], stdin: str, timeout: float) -> live.Output:
        assert command == jtop.command("once")
        assert json.loads(stdin) == sys.path
        assert timeout == jtop.TIMEOUT_S
        if isinstance(output, OSError):
            raise output
        return output

    return run


def read(socket_path: Path, output: live.Output | OSError) -> tuple[dict[str, Any], list[Fault]]:
    tree = Tree(Path("/"))
    notes = list(jtop.read(tree, runs(output), socket_path))
    assert {note.source for note in notes} <= {"jtop of jetson-stats 7.2.2"}
    return {note.field: note.value for note in notes}, tree.faults


def test_what_it_says_is_one_more_reading(there: Path) -> None:
    notes, faults = read(there, live.Output(f"noise\n{json.dumps(ANSWER)}\n", 0))
    assert notes == {
        "jetpack": "6.2.1", "l4t": "36.4.7", "board": HARDWARE["Model"], "module": "p3767-0005", "soc": "tegra234",
        "compute_capability": "8.7", "power_mode": "15W",
    }  # fmt: skip
    assert faults == []


@pytest.mark.parametrize("value", ["", "Unknown", None, 7, "NOT DETECTED", "tegra", ["8.7"]])
def test_its_words_for_what_it_does_not_know_are_no_values(there: Path, value: object) -> None:
    unknown = {**ANSWER, "hardware": dict.fromkeys(HARDWARE, value), "power_mode": None}
    notes, _ = read(there, live.Output(json.dumps(unknown), 0))
    assert set(notes) <= {"board"}
    assert read(there, live.Output('{"version": "7.2.2", "hardware": []}', 0)) == ({}, [])


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (live.Output('{"fault": "version 7.1 of the service"}\n', 0), "version 7.1 of the service"),
        (live.Output("", None), "its service gave no answer in time"),
        (live.Output('{"versi', -9), "its service gave no answer in time"),
        (live.Output("[1]\n7\n", 0), "its service gave no answer in time"),
        (OSError(12, "Cannot allocate memory"), f"can't start {sys.executable}: Cannot allocate memory"),
    ],
)
def test_what_goes_wrong_is_a_reason(there: Path, output: live.Output | OSError, why: str) -> None:
    assert read(there, output) == ({}, [Fault("jetson-stats", why)])


def never(command: list[str], stdin: str, timeout: float) -> live.Output:
    raise AssertionError("nothing may be started")


def test_nothing_is_started_where_it_could_not_be_asked(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for path, why in ((tmp_path / "none", "its service is not running"), (tmp_path / "file", "is no socket")):
        tree = Tree(Path("/"))
        assert list(jtop.read(tree, never, path)) == []
        assert why in tree.faults[0].message
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not use" in jtop.obstacle(there)
    monkeypatch.setattr(jtop, "installed", lambda: False)
    tree = Tree(Path("/"))
    assert list(jtop.read(tree, never, there)) == []
    assert tree.faults == [], "what is not installed is not worth a word"


def test_doctor_shows_both_sides_and_the_reason_as_a_note() -> None:
    both = Fact((Reading("6.2", "dpkg"), Reading("6.2.1", "jtop of jetson-stats 7.2.2")))
    env = Environment(live=True, jetpack=both, faults=(Fault("jetson-stats", "no socket"),))
    told = {problem.code: problem for problem in find_problems(env)}
    assert "6.2.1 (jtop of jetson-stats 7.2.2)" in told["sources-disagree"].message
    assert told["jtop-unused"].severity == "note"
    assert "no socket" in told["jtop-unused"].message
    assert "group jtop" in told["jtop-unused"].remedy
    assert told["jtop-unused"].blocks == ()


def test_the_probe_asks_it_last(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jtop, "obstacle", lambda *_: "")
    answers: Callable[..., live.Output] = machine({})

    def run(command: list[str], stdin: str, timeout: float) -> live.Output:
        if command == jtop.command("once"):
            return live.Output(json.dumps(ANSWER), 0)
        return answers(command, stdin, timeout)

    env = probe(run=run)
    assert env.jetpack.readings[-1] == Reading("6.2.1", "jtop of jetson-stats 7.2.2")


# --- the child, with a package in the place of jetson-stats ---


def child(tmp_path: Path, code: str, mode: str = "once", timeout: float = 60.0) -> live.Output:
    (tmp_path / "jtop.py").write_text(code)
    stdin = json.dumps([str(tmp_path), *sys.path]) + "\n"
    return live.run(jtop.command(mode), stdin, timeout)


def test_the_child_says_what_the_package_says(tmp_path: Path) -> None:
    output = child(tmp_path, f"print('noise')\n{STAND_IN}")
    assert output.code == 0
    assert [json.loads(line) for line in output.stdout.splitlines()] == [SAID]


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ("gpu = {}", {"gpu_load", "gpu_hz"}),
        ("gpu = None", {"gpu_load", "gpu_hz"}),
        ("gpu = {'g': {'freq': {'cur': 612000}}}", {"gpu_load"}),
        ("power = {}", {"power_mw"}),
        ("power = property(lambda self: 1 / 0)", {"power_mw"}),
        ("nvpmodel = None", {"power_mode"}),
        ("board = []", {"hardware"}),
        ("temperature = {}", {"temperatures_c"}),
    ],
)
def test_what_it_does_not_say_as_expected_is_left_out(tmp_path: Path, change: str, lost: set[str]) -> None:
    output = child(tmp_path, f"{STAND_IN}\n    {change}\n")
    assert json.loads(output.stdout) == {name: value for name, value in SAID.items() if name not in lost}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('no module smbus2')", "no module smbus2"),
        ("", "has no attribute 'jtop'"),
        (
            STAND_IN.replace("return self\n", "raise Exception('Mismatch version\\nservice 7.1')\n"),
            "version service 7.1",
        ),
        (STAND_IN.replace("return True", "return False"), "its service has ended"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_package_that_fails_is_a_fault(tmp_path: Path, code: str, why: str) -> None:
    output = child(tmp_path, code)
    assert output.code == 0
    assert why in json.loads(output.stdout)["fault"]


@pytest.mark.slow
def test_a_package_that_hangs_is_ended(tmp_path: Path) -> None:
    assert child(tmp_path, "import time; time.sleep(600)", timeout=1.0) == live.Output("", None)


# --- the real package ---


def real(somebody: str) -> dict[str, Any]:
    """See `jtop_machine`."""
    if importlib.util.find_spec("jtop") is None:
        pytest.skip("jetson-stats is not installed")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a machine of its own needs root and unshare")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable]
    command += ["-m", "tests.environment.jtop_machine", somebody]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_the_real_service_and_its_client() -> None:
    found = real("service")
    assert found["faults"] == []
    values = {name: value for name, (value, _) in found["facts"].items()}
    assert values == {"jetpack": "6.2.1", "l4t": "36.4.7", "board": "NVIDIA Jetson Orin Nano Developer Kit"}
    assert {source for _, source in found["facts"].values()} == {f"jtop of jetson-stats {found['answer']['version']}"}
    assert found["answer"]["gpu_load"] == pytest.approx(0.437)
    assert found["answer"]["gpu_hz"] == 612_000_000
    assert found["answer"]["temperatures_c"] == {"cpu": 61.5}
    assert found["answer"]["power_mw"] == {"VDD_SOC": 998, "VDD_IN": 3580}
    assert found["told"] == []


@pytest.mark.slow
@pytest.mark.parametrize("somebody", ["frozen", "silent", "rubbish", "denied"])
def test_the_real_client_and_what_it_can_not_talk_with(somebody: str) -> None:
    found = real(somebody)
    assert found["facts"] == {}
    assert found["answer"] == {}
    assert len(found["faults"]) == 1
    assert found["faults"][0]
    if somebody == "denied":
        assert "may not use" in found["faults"][0]
        assert any("may not use" in line for line in found["told"])
