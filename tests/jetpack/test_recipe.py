"""Whoever follows the README on a Jetson as it is after flashing gets TensorRT, and not silently the CPU.

Real and stand-in: see board.py. `replace_runtime` in recipe.py is the one thing done beside what the README says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeinfer.client import Subscriber
from edgeinfer.messages import DetectionsMessage
from tests.jetpack.board import JETPACK_7, Jetson
from tests.jetpack.conftest import booted
from tests.jetpack.recipe import EDGEINFER, SetUp, set_up

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]
PATIENCE_S = 120


@pytest.fixture
def thor(tmp_path: Path) -> Iterator[Jetson]:
    yield from booted(tmp_path, JETPACK_7)


def test_on_an_orin_with_jetpack_6(jetpack6: SetUp) -> None:
    page = " ".join(next(text for text in jetpack6.said if "backend: " in text).split())
    assert "backend: tensorrt: TensorRT 10.3.0.30 on Orin (compute capability 8.7)" in page
    assert "JetPack 6.2.1" in page
    assert "cuda-bindings-12." in " ".join(jetpack6.said)
    check_service(jetpack6.jetson, page)


def test_on_a_thor_with_jetpack_7(thor: Jetson) -> None:
    made = set_up(thor, JETPACK_7)
    page = " ".join(next(text for text in made.said if "backend: " in text).split())
    assert "backend: tensorrt: TensorRT 10.13.3.9 on NVIDIA_Thor (compute capability 11.0)" in page
    assert "JetPack 7.1" in page
    assert "cuda-bindings-13." in " ".join(made.said)
    check_service(thor, page)


def check_service(jetson: Jetson, page: str) -> None:
    """Doctor's page has no error, the service serves on TensorRT, and says so everywhere."""
    assert "error: " not in page
    assert jetson.show("edgeinfer", "ActiveState") == "active"
    jetson.wait(lambda: "tensorrt-fp16" in jetson.show("edgeinfer", "StatusText"), "the engine", PATIENCE_S)
    assert "says        tensorrt-fp16: " in jetson.typed(f"sudo {EDGEINFER} service status")
    status = jetson.typed(f"{EDGEINFER} status", check=False)
    assert "nanodet-g@e747d49e on tensorrt-fp16" in status
    assert "tensorrt-unused" not in status
    journal = jetson.journal("-u", "edgeinfer")
    assert "tensorrt-fp16 takes over from onnxruntime-cpu" in journal
    assert "warning" not in journal.lower()
    assert detects_something()
    jetson.systemctl("stop", "edgeinfer")  # machines share a network here, and the next one wants the port


def test_anybody_may_ask_how_the_service_is(jetpack6: SetUp) -> None:
    """The README types it without sudo."""
    said = jetpack6.jetson.typed(f"{EDGEINFER} service status", check=False)
    assert "unit        edgeinfer.service" in said, said


def detects_something() -> bool:
    """Whether detections come over ZeroMQ."""
    with Subscriber("tcp://127.0.0.1:5555") as subscriber:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            message = subscriber.receive(1)
            if isinstance(message, DetectionsMessage) and message.detections:
                return True
    return False
