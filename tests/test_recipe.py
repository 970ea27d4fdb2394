"""The recipe for installing: one for every machine, with parts that exist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer import recipe
from tests.notify_socket import NotifySocket

ROOT = Path(__file__).parent.parent
SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        (None, recipe.PC),
        ("", recipe.PC),
        ("\xff\xfe rubbish", recipe.PC),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n", recipe.JETPACK_6),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", recipe.JETPACK_6),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n", recipe.JETPACK_7),
        ("# R39 (release), REVISION: 2.0\n", recipe.JETPACK_7),
    ],
)
def test_the_recipe_is_that_of_the_machine(tmp_path: Path, text: str | None, machine: recipe.Machine) -> None:
    if text is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / recipe.RELEASE).write_text(text, encoding="latin-1")
    assert recipe.here(tmp_path) is machine


def test_a_jetsons_environment_sees_its_tensorrt_and_has_the_right_cuda() -> None:
    assert recipe.JETPACK_6.commands == (
        "apt install python3-venv python3-systemd python3-libnvinfer python3-gi gir1.2-gstreamer-1.0",
        "python3 -m venv --system-site-packages /opt/edgeinfer",
        "/opt/edgeinfer/bin/pip install '.[cpu,rtsp,jetpack6]'",
    )
    assert "jetpack7" in recipe.JETPACK_7.pip
    assert recipe.PC.apt == "apt install python3-venv python3-systemd"


@pytest.mark.parametrize("machine", [recipe.PC, recipe.JETPACK_6, recipe.JETPACK_7])
def test_every_extra_of_a_recipe_exists_and_none_is_compiled(machine: recipe.Machine) -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib is of Python 3.11")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(machine.extras) <= known.keys()
    assert "systemd" not in machine.extras, "pip would have to compile it"


TELL = """
import sys
import systemd.daemon, systemd.journal
from edgeinfer.systemd import journal, notify
assert "dist-packages" in systemd.__file__, systemd.__file__
assert journal.Send and notify.enabled()
notify.ready("up")
print(sys.prefix, systemd.journal.send.__name__)
"""


@pytest.mark.slow
def test_debians_library_serves_in_an_environment_that_sees_it(tmp_path: Path) -> None:
    probe = [str(SYSTEM_PYTHON), "-c", "import sys, venv, systemd.daemon; assert sys.version_info >= (3, 10)"]
    if not SYSTEM_PYTHON.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("python3-systemd or python3-venv is not installed, or the system's Python is too old")
    place = tmp_path / "venv"
    make = [str(SYSTEM_PYTHON), "-m", "venv", "--without-pip", "--system-site-packages", str(place)]
    subprocess.run(make, check=True)
    with NotifySocket(tmp_path / "notify") as listening:
        environ = {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": listening.address, "PATH": os.environ["PATH"]}
        told = subprocess.run(
            [str(place / "bin" / "python"), "-c", TELL], env=environ, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        assert listening.read(1) == [{"READY": "1", "STATUS": "up"}]
    assert told.stdout.split() == [str(place), "send"]


def test_a_jetson_is_told_by_its_release_file_or_its_device_tree(tmp_path: Path) -> None:
    assert not recipe.on_jetson(tmp_path)
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3767-0005\0nvidia,tegra234\0")
    assert recipe.on_jetson(tmp_path)
    (tree / "compatible").write_bytes(b"raspberrypi,5\0")
    assert not recipe.on_jetson(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").touch()
    assert recipe.on_jetson(tmp_path)


@pytest.mark.parametrize(
    ("writable", "found", "typed"),
    [
        (True, "/venv/bin/pip", "pip"),
        (True, "/usr/bin/pip", "/venv/bin/pip"),
        (True, None, "/venv/bin/pip"),
        (False, "/venv/bin/pip", "sudo /venv/bin/pip"),
        (False, None, "sudo /venv/bin/pip"),
    ],
)
def test_the_pip_that_is_named_is_this_pythons(
    monkeypatch: pytest.MonkeyPatch, writable: bool, found: str | None, typed: str
) -> None:
    monkeypatch.setattr(sys, "prefix", "/venv")
    monkeypatch.setattr(os, "access", lambda path, how: writable)
    monkeypatch.setattr(shutil, "which", lambda name: found)
    assert recipe.pip("install 'edgeinfer[rtsp]'") == f"{typed} install 'edgeinfer[rtsp]'"
