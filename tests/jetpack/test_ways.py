"""Every way of `ways.py`, on a Jetson on which the README's recipe was typed: one line, the same wherever one looks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.jetpack import tensorrt_stub
from tests.jetpack.board import Jetson
from tests.jetpack.recipe import EDGEINFER, SetUp
from tests.jetpack.ways import WAYS, Way

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]
CONFIG = {"model": {"max_batch": 2}, "sources": {"demo": {"uri": "demo:", "fps": 5}}}
USUAL = {"nodes": "/dev/nvmap:/dev/nvgpu/igpu0/ctrl"}
OURS = "env COLUMNS=500 HOME=/var/lib/edgeinfer/main CACHE_DIRECTORY=/var/cache/edgeinfer XDG_STATE_HOME=/tmp/state"
RUN = f"""
mkdir -p /tmp/state; cd /tmp
{OURS} {EDGEINFER} run --config /etc/edgeinfer/edgeinfer.yaml --bind 'tcp://127.0.0.1:*' >said 2>&1 &
for step in $(seq 300); do
  grep -sqE 'not used|takes over|engine-failed|on tensorrt' said && break
  sleep 0.1
done
kill -INT $!; wait $! || true; cat said; rm said
"""


@pytest.fixture(scope="module")
def jetson(jetpack6: SetUp) -> Jetson:
    """Its service with a configuration that is quick to build an engine for, and the engine built."""
    jetson = jetpack6.jetson
    wheels = jetson.share / "wheels"
    wheels.mkdir()
    tensorrt_stub.write_wheels(wheels, "10.13.3.9")
    jetson.script(f"mkdir -p /opt/aside/wheels; cp -r {wheels}/. /opt/aside/wheels/")
    (jetson.share / "quick.yaml").write_text(json.dumps(CONFIG))
    jetson.script(f"{EDGEINFER} service install --config {jetson.share}/quick.yaml")
    jetson.wait(lambda: "tensorrt-fp16" in jetson.show("edgeinfer", "StatusText"), "the engine", 120)
    return jetson


@pytest.fixture
def broken(jetson: Jetson, request: pytest.FixtureRequest) -> Iterator[Way]:
    """The machine gone wrong, for the length of a test."""
    way: Way = request.param
    jetson.set(**USUAL, **way.driver)
    jetson.script(way.breaks, timeout=300)
    jetson.script("systemctl restart edgeinfer")
    yield way
    jetson.script(way.mends)
    jetson.set(**USUAL)


def ways(works: bool) -> list[object]:
    return [
        pytest.param(way, id=way.name, marks=[pytest.mark.xfail(strict=True, reason=way.wrong)] if way.wrong else [])
        for way in WAYS
        if way.works == works
    ]


def as_service(jetson: Jetson, text: str) -> str:
    """What a script prints that runs as the service's user, on one line."""
    return flat(jetson.as_user("edgeinfer", text, check=False))


def settled(jetson: Jetson) -> str:
    """What status says once it tells what becomes of the engine, or after a while."""
    said = ""
    for _ in range(20):
        said = as_service(jetson, f"{OURS} {EDGEINFER} status")
        if any(word in said for word in ("tensorrt-unused", "engine-failed", "engine-ready")):
            break
    return said


def flat(text: str) -> str:
    return " ".join(text.split())


def journal(jetson: Jetson) -> str:
    """Of the service since its last start."""
    return flat(jetson.journal(f"_SYSTEMD_INVOCATION_ID={jetson.show('edgeinfer', 'InvocationID')}"))


@pytest.mark.parametrize("broken", ways(works=False), indirect=True)
def test_it_is_said_in_one_line_the_same_everywhere(jetson: Jetson, broken: Way) -> None:
    line = f"{broken.message}; {broken.remedy}"
    said = {
        "run": as_service(jetson, RUN),
        "status": settled(jetson),
        "journal": journal(jetson),
        "doctor": as_service(jetson, f"{OURS} {EDGEINFER} doctor").replace(" → ", "; "),
    }
    page = said.pop("doctor") if broken.of_now else said["doctor"]
    missing = {place: text for place, text in said.items() if line not in text}
    assert not missing, f"{line!r} is not in:\n" + "\n".join(f"{place}: {text}" for place, text in missing.items())
    assert f"backend: {'tensorrt' if broken.of_now else 'onnxruntime'}: " in page
    assert "on onnxruntime-cpu" in said["status"]


@pytest.mark.parametrize("broken", ways(works=True), indirect=True)
def test_it_does_no_harm(jetson: Jetson, broken: Way) -> None:
    page = as_service(jetson, f"{OURS} {EDGEINFER} doctor").replace(" → ", "; ")
    assert "backend: tensorrt: " in page, page
    assert f"{broken.message}; {broken.remedy}".strip("; ") in page
    jetson.wait(lambda: "tensorrt-fp16" in jetson.show("edgeinfer", "StatusText"), "the engine")
    status = as_service(jetson, f"{OURS} {EDGEINFER} status")
    assert "on tensorrt-fp16" in status
    assert "tensorrt-unused" not in status
    assert "not used" not in as_service(jetson, RUN)
