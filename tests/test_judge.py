"""The judge beside a real daemon in this process: what it tells, and when it withholds the heartbeat."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.commands._journal import Changes
from edgeinfer.config.settings import load_config
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.errors import FatalError, StickyError
from edgeinfer.gpu.patience import PATIENCE
from edgeinfer.messages import DAEMON, Reason, StatusMessage
from edgeinfer.systemd import journal
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.watchdog import judge as module
from edgeinfer.watchdog.crash import Crash, CrashLog
from edgeinfer.watchdog.hearts import Heart
from edgeinfer.watchdog.judge import Judge
from tests.notify_socket import NotifySocket
from tests.test_engines import Recorder


class EndedError(Exception):
    """Instead of the end of this process."""


class Words:
    """Stands in for LastWords: the process that it would end is the one that tests it."""

    def __init__(self) -> None:
        self.crash: Crash | None = None

    def speak(self, crash: Crash) -> None:
        self.crash = crash
        raise EndedError


class Scene:
    """A daemon on the demo camera that runs until it is stopped, and its judge, which looks when it is told to."""

    def __init__(self, state: Path) -> None:
        overrides = [("publish", None), ("sources.d", {"uri": "demo:", "width": 64, "height": 64})]
        self.recorder = Recorder()
        self.daemon = Daemon(load_config(None, overrides), {"recorder": self.recorder})
        self.crashes = CrashLog(state)
        self.judge = Judge(self.daemon, 5.0, self.crashes)
        self.words = Words()
        self.judge._words = self.words  # type: ignore[assignment]
        self.daemon.start()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, what
            assert self.daemon.turn()
            time.sleep(0.02)

    def daemon_status(self) -> list[StatusMessage]:
        return [m for m in self.recorder.messages if isinstance(m, StatusMessage) and m.source == DAEMON]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "state")
    yield made
    with Signals() as signals:
        made.daemon.stop(Patience(signals, hurry=True))
    made.judge._marker.close()


@pytest.mark.slow
def test_no_heartbeat_for_a_stage_that_is_silent_whatever_the_others_do(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NotifySocket(tmp_path / "notify") as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
        scene.until(lambda: bool(scene.recorder.detections()), "no detections")
        scene.judge.tick()
        assert {"WATCHDOG": "1"} in listener.read(1)
        stuck = Heart("inference", lambda: 0.0)
        stuck._clock = lambda: 5.1
        monkeypatch.setattr(scene.daemon, "hearts", lambda: [Heart("publisher"), stuck])
        count = len(listener.read())
        with pytest.raises(EndedError):
            scene.judge.tick()
        assert len(listener.read()) == count
    crash = scene.words.crash
    assert crash is not None
    assert (crash.code, crash.stage, crash.backend) == ("stalled", "inference", "onnxruntime-cpu")
    assert "test_no_heartbeat" in crash.stacks


@pytest.mark.slow
def test_a_process_that_stood_still_blames_no_stage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.until(lambda: bool(scene.recorder.detections()), "no detections")
    now = [time.monotonic()]
    frozen = Heart("inference", lambda: now[0])
    monkeypatch.setattr(module, "deadline_s", lambda least_s, p99_ms: least_s)  # however slow this machine is
    monkeypatch.setattr(scene.daemon, "hearts", lambda: [frozen])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    scene.judge.tick()
    now[0] += 3600
    scene.judge.tick()
    for _ in range(int(5 / module.TICK_S) - 2):  # and from now on it must move
        now[0] += module.TICK_S
        scene.judge.tick()
    now[0] += 3 * module.TICK_S
    with pytest.raises(EndedError):
        scene.judge.tick()


@pytest.mark.slow
def test_beside_a_build_a_stage_may_be_as_slow_as_the_gpu_may(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.until(lambda: bool(scene.recorder.detections()), "no detections")
    now = [time.monotonic()]
    waiting = Heart("inference", lambda: now[0])
    monkeypatch.setattr(module, "deadline_s", lambda least_s, p99_ms: least_s)
    monkeypatch.setattr(scene.daemon, "hearts", lambda: [waiting])
    monkeypatch.setattr(scene.judge, "_forgive_standstill", lambda: None)
    with PATIENCE.building():
        now[0] += 60 + 5
        scene.judge.tick()
        now[0] += 1
        with pytest.raises(EndedError):
            scene.judge.tick()


@pytest.mark.parametrize(
    ("error", "code"),
    [(FatalError("x rtsp://u:secret@h"), "fatal"), (StickyError("y"), "sticky-cuda-error"), (None, "")],
)
def test_how_a_run_ended_is_kept(scene: Scene, error: Any, code: str) -> None:
    if isinstance(error, StickyError):
        with pytest.raises(EndedError):
            scene.judge.ending(error)
        assert scene.words.crash is not None
        assert scene.words.crash.code == code
        return
    scene.judge.ending(error)
    scene.judge.close()
    crash = scene.crashes.read()
    assert (crash.code if crash else "") == code
    assert "secret" not in str(crash)
    assert not list((scene.crashes._root / "running").iterdir())


def test_stages_are_judged_to_the_very_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight may still be passed on, under watch; the main thread only waits for the others now."""
    scene.judge.ending(None)
    assert scene.daemon.heart.silent_s() == 0
    scene.judge.tick()
    stuck = Heart("publisher", lambda: 0.0)
    stuck._clock = lambda: 99.0
    monkeypatch.setattr(scene.daemon, "hearts", lambda: [stuck])
    with pytest.raises(EndedError):
        scene.judge.tick()
    scene.judge.close()
    scene.judge.tick()  # and after it no more


def test_the_deadline_follows_the_last_thousand_frames(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the 99th percentile of inference, where that is more than what was set."""
    slow = DaemonSnapshot(model="m", backend="slow", latency_ms={"infer": {"p50": 1.0, "p99": 900.0}})
    monkeypatch.setattr(scene.daemon, "snapshot", lambda: slow)
    scene.judge.tick()
    patient = Heart("inference", lambda: 0.0)
    monkeypatch.setattr(scene.daemon, "hearts", lambda: [patient])
    patient._clock = lambda: 8.9
    scene.judge.tick()
    patient._clock = lambda: 9.1
    with pytest.raises(EndedError):
        scene.judge.tick()
    assert scene.words.crash is not None
    assert scene.words.crash.backend == "slow"


def test_the_engine_is_blamed_for_its_stage_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    blamed: list[str] = []
    for stage in ("publisher", "inference"):
        stuck = Heart(stage, lambda: 0.0)
        stuck._clock = lambda: 99.0
        monkeypatch.setattr(scene.daemon, "hearts", lambda stuck=stuck: [stuck])
        monkeypatch.setattr(scene.daemon, "blame_engine", lambda stage=stage: blamed.append(stage))
        with pytest.raises(EndedError):
            scene.judge.tick()
    assert blamed == ["inference"]


def test_the_journal_gets_changes_and_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    sink = Changes()
    caplog.set_level(logging.INFO, "edgeinfer")

    def status(state: Any, reason: Reason | None = None) -> StatusMessage:
        zero: Any = dict.fromkeys(("captured", "inferred", "in_flight", "dropped", "fps"), 0)
        common: Any = {"session": "s", "t_publish_ns": 0, "t_publish_mono_ns": 0, "dropped_by_reason": {}}
        return StatusMessage(source="front", state=state, reason=reason, **zero, **common)

    for message in (
        status("running"),
        status("running"),
        status("stalled", Reason("timeout", "no frame for 3 s")),
        status("stalled", Reason("timeout", "no frame for 4 s")),
        status("running"),
    ):
        sink.write(message, None)
    found = [(r.levelname, r.getMessage(), r.__dict__["EDGEINFER_EVENT"]) for r in caplog.records]
    assert [(message, event) for _, message, event in found] == [
        ("front is running", "running"),
        ("front is stalled: no frame for 3 s", "timeout"),
        ("front is running", "running"),
    ]
    assert caplog.records[1].levelno == logging.WARNING
    assert {r.__dict__["EDGEINFER_SOURCE"] for r in caplog.records} == {"front"}
    assert journal.fields("a") == {"EDGEINFER_SOURCE": "a"}


@pytest.mark.slow
def test_systemd_hears_when_a_reload_begins_and_ends(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NotifySocket(tmp_path / "notify") as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
        scene.until(lambda: bool(scene.recorder.detections()), "no detections")
        scene.daemon.reloader.request(1)
        scene.until(lambda: any("READY" in fields for fields in listener.read()), "the end was not told")
        told = [next(iter(fields)) for fields in listener.read() if "RELOADING" in fields or "READY" in fields]
        assert told == ["RELOADING", "READY"]
