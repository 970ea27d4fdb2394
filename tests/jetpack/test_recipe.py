"""The README's recipe, typed word for word on a Jetson as it is after flashing, and what comes of it.

What can't be had: NVIDIA's own CUDA runtime inside cuda-python does not work on a stub driver (libcuda.c says what it does).
So its module is put out of action once pip has installed it; the product then takes JetPack's libcudart, a stub here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from edgeinfer.client import Subscriber
from edgeinfer.messages import DetectionsMessage
from tests.jetpack.board import JETPACK_6, JETPACK_7, Jetson, Release, why_not
from tests.systemd_machine import ROOT
from tests.systemd_machine import why_not as why_no_boot

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]
PATIENCE_S = 120
EDGEINFER = "/opt/edgeinfer/bin/edgeinfer"


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jetson]:
    if reason := why_no_boot() or why_not(JETPACK_6, JETPACK_7):
        pytest.skip(reason)
    booted = Jetson(tmp_path_factory.mktemp("jetson"), JETPACK_6, JETPACK_7)
    yield booted
    booted.close()


def recipe() -> list[str]:
    """The commands of the README."""
    found = re.search(r"<!-- jetson recipe -->\n```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found
    return [line.removeprefix("$ ") for line in found[1].splitlines() if line.startswith("$ ")]


def set_up(jetson: Jetson, release: Release) -> list[str]:
    """Makes it this release and types the recipe. What each command printed."""
    jetson.become(release)
    said = []
    for line in recipe():
        said.append(jetson.typed(line.replace("jetpack6", release.extra)))
        if "/bin/pip install" in line:
            replace_runtime(jetson, release.python)
    return said


def replace_runtime(jetson: Jetson, python: str) -> None:
    """Puts cuda-python's own CUDA runtime out of action, which is of the right version."""
    folder = f"/opt/edgeinfer/lib/python{python}/site-packages/cuda/bindings"
    jetson.script(f"""
        /opt/edgeinfer/bin/pip list 2>/dev/null | grep cuda-bindings
        rm {folder}/runtime.*.so
        echo 'raise ImportError("not on a stub driver")' >{folder}/runtime.py""")


@pytest.mark.parametrize(
    ("release", "gpu", "cuda_python"),
    [(JETPACK_6, "Orin (compute capability 8.7)", "12"), (JETPACK_7, "NVIDIA_Thor (compute capability 11.0)", "13")],
    ids=lambda value: f"jetpack-{value.name}" if isinstance(value, Release) else "",
)
def test_whoever_follows_the_readme_gets_tensorrt(jetson: Jetson, release: Release, gpu: str, cuda_python: str) -> None:
    said = set_up(jetson, release)
    assert "tensorrt" in jetson.script(f"ls /usr/lib/python{release.python}/dist-packages")
    assert f"cuda-bindings-{cuda_python}." in " ".join(said)
    doctor = " ".join(next(page for page in said if "backend: " in page).split())
    version = "10.3.0.30" if release is JETPACK_6 else release.tensorrt
    assert f"backend: tensorrt: TensorRT {version} on {gpu}" in doctor
    assert "error: " not in doctor
    for fact in (f"JetPack {release.name}", f"CUDA driver {release.cuda}"):
        assert fact in doctor
    assert jetson.show("edgeinfer", "ActiveState") == "active"
    jetson.wait(lambda: "tensorrt-fp16" in jetson.show("edgeinfer", "StatusText"), "the engine", PATIENCE_S)
    assert "says        tensorrt-fp16: " in jetson.typed(f"{EDGEINFER} service status")
    status = jetson.typed(f"{EDGEINFER} status")
    assert "nanodet-g@e747d49e on tensorrt-fp16" in status
    assert "tensorrt-unused" not in status
    journal = jetson.journal("-u", "edgeinfer")
    assert "tensorrt-fp16 takes over from onnxruntime-cpu" in journal
    assert "warning" not in journal.lower()
    assert detects_something()
    jetson.script(f"{EDGEINFER} service uninstall --purge")


def detects_something() -> bool:
    """Whether detections come over ZeroMQ."""
    with Subscriber("tcp://127.0.0.1:5555") as subscriber:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            message = subscriber.receive(1)
            if isinstance(message, DetectionsMessage) and message.detections:
                return True
    return False
