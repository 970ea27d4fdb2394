"""`edgeinfer top` on a real terminal, and what is shown of a daemon."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from msgspec import UNSET, structs
from rich.color import Color
from rich.console import Console

from edgeinfer.commands import _drawing, _overview
from edgeinfer.commands._remote import RemoteDaemon
from edgeinfer.messages import (
    DAEMON,
    InfoMessage,
    MachineVitals,
    Reason,
    SinkVitals,
    StatusMessage,
    VideoDecoderInfo,
    Vitals,
)
from edgeinfer.pictures import lettering
from tests.test_messages import example
from tests.test_zmq import Start


def overview(**status: object) -> RemoteDaemon:
    found = RemoteDaemon()
    info, source = example("info"), example("status")
    assert isinstance(info, InfoMessage)
    assert isinstance(source, StatusMessage)
    found.add(structs.replace(info, sources=["front"], backend="onnxruntime-cpu"))
    found.add(structs.replace(source, **{"source": "front", "state": "running", **status}))
    vitals = Vitals(
        latency_ms={"total": {"p50": 1.0, "p95": 2.0, "p99": 3.0}},
        machine=MachineVitals(
            throttled=["cpu-throttle-alert"], temperatures_c={"cpu": 81.5}, gpu_load=0.5, power_mode="15W"
        ),
    )
    found.add(structs.replace(source, source=DAEMON, reason=None, vitals=vitals))
    return found


def shown(found: RemoteDaemon, width: int = 200) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123 (for this line)
    with console.file:
        console.print(_overview.page(found))
        return console.export_text()


def test_the_page() -> None:
    text = shown(overview())
    for part in ("front", "running", "capture → publish", "3.00", "cpu 82 °C", "GPU 50%", "power mode 15W"):
        assert part in text
    assert "throttled: cpu-throttle-alert" in text


def test_what_decodes_a_source_is_shown_with_the_reason() -> None:
    known = overview(decoder=VideoDecoderInfo(name="nvdec", why="this GPU decodes it"))
    assert "nvdec: this GPU decodes it" in shown(known)


WORDY = {
    "state": "reconnecting",
    "captured": 1_234_567,
    "inferred": 1_134_566,
    "dropped": 100_001,
    "dropped_by_reason": {"overload": 100_000, "throttled": 1},
    "reason": Reason("refused", "rtsp://192.168.1.20:554/stream1: Connection refused"),
    "decoder": VideoDecoderInfo(name="av", why="a network camera, and PyNvVideoCodec is not installed"),
}


@pytest.mark.parametrize("width", [60, 80, 100, 139, 140, 200])
def test_on_a_terminal_of_any_width_no_number_is_cut_and_everything_is_said(width: int) -> None:
    lines = shown(overview(**WORDY), width).splitlines()
    assert max(map(len, lines)) <= width
    (row,) = (line.split() for line in lines if "reconnecting" in line)
    assert row[:5] == ["front", "reconnecting", "30.0", "1234567", "1134566"]
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    for word in ("100000 overload", "refused", "554/stream1", "PyNvVideoCodec"):
        assert word in text


def test_where_there_is_no_room_words_stand_below_the_numbers() -> None:
    text = shown(overview(**WORDY), 80)
    row, remark = text.index("1134566"), text.index("front: refused: rtsp://")
    assert row < remark
    assert text[row:remark].split() == ["1134566", "100001"]
    assert shown(overview(), 80).count("front") == 1, "where there is nothing to say there is no line for it"


def test_a_name_that_is_too_long_can_still_be_read() -> None:
    found = overview(**WORDY)
    found.add(structs.replace(found.sources["front"], source="the-camera-that-looks-at-the-yard-behind-the-house"))
    assert found.info is not None
    found.add(structs.replace(found.info, sources=["front", "the-camera-that-looks-at-the-yard-behind-the-house"]))
    lines = shown(found, 80).splitlines()
    assert "".join(line[:20].strip() for line in lines if line.startswith(("the", "-", "yard", "hou"))).startswith(
        "the-camera"
    )
    assert all("1134566" in line for line in lines if "reconnecting" in line)


@pytest.mark.parametrize("name", ["GOOD", "WARNING", "BAD", "NOTE"])
def test_colours_can_be_read_on_white_and_on_black(name: str) -> None:
    red, green, blue = Color.parse(getattr(_drawing, name)).get_truecolor()
    for behind in (lettering.WHITE, lettering.BLACK):
        assert lettering.contrast((blue, green, red), behind) > 3.8


def test_control_characters_of_a_peer_do_not_reach_the_terminal() -> None:
    text = shown(
        overview(state="failed", reason=Reason("x", "\x1b]0;owned\x07\x9b31m"), dropped_by_reason={"\x1b[2J": 1})
    )
    assert not {"\x1b", "\x07", "\x9b"} & set(text)


def test_markup_of_a_peer_is_text() -> None:
    assert "[red]x[/nothing]" in shown(overview(reason=Reason("x", "[red]x[/nothing]")))


def test_a_narrow_terminal_keeps_the_numbers() -> None:
    text = shown(overview(reason=Reason("timeout", "no frame came within two seconds, and so on")), width=72)
    assert "front" in text
    assert "running" in text


def test_a_new_session_starts_over() -> None:
    found = overview()
    assert found.complete
    assert found.good
    assert found.info is not None
    found.add(structs.replace(found.info, session="another"))
    assert not found.complete
    assert not found.sources


@pytest.mark.parametrize("state", ["starting", "stalled", "reconnecting", "failed"])
def test_what_needs_attention(state: str) -> None:
    assert not overview(state=state).good


def test_a_model_that_is_not_loaded_is_not_good() -> None:
    found = overview()
    assert found.info is not None
    found.add(structs.replace(found.info, backend=None))
    assert not found.good


@pytest.mark.parametrize("ok", [True, False])
def test_a_sink_that_loses_needs_attention(ok: bool) -> None:
    found = overview()
    assert found.daemon is not None
    sinks = {"sinks.jsonl": SinkVitals(ok=ok, lost=7, text="" if ok else "No space left on device")}
    found.add(structs.replace(found.daemon, vitals=Vitals(sinks=sinks)))
    assert found.good == ok


def test_vitals_are_optional() -> None:
    found = overview()
    assert found.daemon is not None
    found.add(structs.replace(found.daemon, vitals=UNSET))
    assert "front" in shown(found)


@pytest.mark.parametrize("leave", [b"q", signal.SIGINT])
def test_top_on_a_terminal(daemon_process: Start, ipc: str, leave: bytes | signal.Signals) -> None:
    daemon_process("run", "--source", "cam=demo:", "--bind", ipc)
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "edgeinfer", "top", ipc]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=Path(__file__).parent.parent
    )
    try:
        screen, end = b"", time.monotonic() + 60
        while b"cam" not in screen and time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                screen += os.read(ours, 65536)
        assert b"cam" in screen
        if isinstance(leave, bytes):
            os.write(ours, leave)
        else:
            process.send_signal(leave)
        while process.poll() is None and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 65536)
        assert process.wait(10) == 0
        assert termios.tcgetattr(theirs) == before, "the terminal is as it was"
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
