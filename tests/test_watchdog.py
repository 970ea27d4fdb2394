"""Stages that stand still, a GPU that is lost, a process that is killed: noticed in time, told, remembered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeinfer.client import Subscriber
from edgeinfer.cuda import status as cudastatus
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.errors import FatalError, OutOfMemoryError, StickyError, UnavailableError
from edgeinfer.guard.limits import MAX_STACKS
from edgeinfer.messages import DAEMON, Reason, StatusMessage
from edgeinfer.systemd import notify
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SourceSnapshot
from edgeinfer.watchdog.crash import Crash, CrashLog, Run, boot_id, stacks, state_root
from edgeinfer.watchdog.hearts import Heart, deadline_s, find_stall
from edgeinfer.watchdog.last_words import LIMIT_S, LastWords
from edgeinfer.watchdog.service_manager import LOADING_S, QUIET_READY_S, ServiceManager, is_ready, summary
from tests.conftest import CLIP_FRAMES, Cli
from tests.engine.test_cache import put
from tests.notify_socket import NotifySocket

ROOT = Path(__file__).parent.parent
Start = Callable[..., "subprocess.Popen[str]"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# The rule


def test_the_stage_that_is_silent_for_longest_is_named() -> None:
    clock = Clock()
    hearts = [Heart(name, clock) for name in ("inference", "publisher", "main")]
    clock.now += 4
    hearts[1].beat()
    hearts[2].rest()
    clock.now += 2
    stall = find_stall(hearts, 5)
    assert stall is not None
    assert (stall.stage, stall.silent_s, stall.deadline_s) == ("inference", 6, 5)
    hearts[0].beat()
    assert find_stall(hearts, 5) is None
    hearts[2].beat()
    clock.now += 100
    assert hearts[2].silent_s() == 0, "what rests does so for good"


def test_allowance_patience_and_forgiveness_move_the_deadline() -> None:
    clock = Clock()
    loading, main = Heart("inference", clock), Heart("main", clock, patience=3)
    loading.beat(60)
    clock.now += 14
    assert find_stall([loading, main], 5) is None
    clock.now += 2
    stall = find_stall([loading, main], 5)
    assert stall is not None
    assert stall.stage == "main"
    main.forgive(10)
    assert find_stall([loading, main], 5) is None
    clock.now += 50
    stall = find_stall([loading], 5)
    assert stall is not None
    assert stall.silent_s == pytest.approx(6)


@pytest.mark.parametrize(("least", "p99", "expected"), [(5, 0, 5), (5, 25, 5), (5, 900, 9), (2, 250, 2.5)])
def test_slow_inference_is_not_stuck(least: float, p99: float, expected: float) -> None:
    assert deadline_s(least, p99) == expected


@pytest.mark.parametrize("code", [2, 1, 100, 700, 702, 719, 999])
def test_one_function_judges_cuda_errors(code: int) -> None:
    sticky = code not in (1, 2, 100)
    assert cudastatus.is_sticky(code) is sticky
    error = cudastatus.error_of("cudaMemcpyAsync", code, "x")
    assert isinstance(error, StickyError) is sticky
    assert isinstance(error, {2: OutOfMemoryError, 100: UnavailableError}.get(code, FatalError))
    texts = (f"CUDA failure {code}: an illegal memory access was encountered ; GPU=0", f"CUDA error {code} at x.cu:3")
    for text in texts:
        assert isinstance(cudastatus.error_from_text(text), StickyError) is sticky


def test_a_text_without_a_status_is_not_sticky() -> None:
    said = "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 700"
    assert isinstance(cudastatus.error_from_text(said), OutOfMemoryError)
    assert type(cudastatus.error_from_text("Invalid input shape: 700")) is FatalError


def test_a_heart_beats_rests_and_is_forgiven() -> None:
    clock = Clock()
    heart = Heart("main", clock)
    clock.now += 3
    assert heart.silent_s() == 3
    heart.forgive(2)
    assert heart.silent_s() == 1
    heart.beat()
    assert heart.silent_s() == 0
    heart.beat(10)
    assert heart.silent_s() == -10
    heart.beat()
    clock.now += 1
    assert find_stall([heart], 1) is None, "its deadline is not past yet"
    assert find_stall([], 1) is None
    clock.now += 1
    assert str(find_stall([heart], 1)) == "stage main has not moved for 2.0 s; its deadline is 1.0 s"
    heart.rest()
    clock.now += 1000
    heart.forgive(5)
    assert heart.silent_s() == 0
    assert find_stall([heart], 1) is None


def test_of_several_that_are_silent_the_longest_is_blamed_and_patience_is_theirs() -> None:
    clock = Clock()
    early, patient = Heart("early", clock), Heart("patient", clock, patience=3)
    clock.now += 1
    late = Heart("late", clock)
    clock.now += 10
    stall = find_stall([late, early, patient], 4)
    assert stall is not None
    assert (stall.stage, stall.silent_s) == ("early", 11)
    stall = find_stall([patient], 3)
    assert stall is not None
    assert stall.deadline_s == 9


# Last words


class Gone(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The exit codes that the process would have ended with, and those that a timer holds ready."""
    codes: list[Any] = []

    class Timer:
        def __init__(self, seconds: float, call: Callable[[int], None], arguments: tuple[int]) -> None:
            self.seconds, self.arguments = seconds, arguments
            self.daemon = False

        def start(self) -> None:
            assert self.daemon, "it would hold up an end that has come already"
            codes.append((self.seconds, *self.arguments))

    def end(code: int) -> None:
        codes.append(code)
        raise Gone

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(threading, "Timer", Timer)
    monkeypatch.setattr(time, "sleep", lambda seconds: codes.append(f"slept {seconds > 0}"))
    return codes


def test_the_end_is_told_stored_and_final(ends: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    kept, told = list[Crash](), list[Reason]()
    crash = Crash(code="stalled", text="stage x of rtsp://u:hunter2@cam/1 has\nnot moved")
    with pytest.raises(Gone):
        LastWords(kept.append, told.append).speak(crash)
    assert ends == [(LIMIT_S, 70), "slept True", 70]
    assert kept == [crash]
    assert told == [Reason("fatal", "stage x of rtsp://***@cam/1 has not moved")]
    said = capsys.readouterr().err
    assert said.startswith("edgeinfer: error: stage x of rtsp://***@cam/1 has not moved; the process ends")
    assert "hunter2" not in said


def no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("broken", ["keep", "tell", "stderr", "threads"])
def test_nothing_that_fails_at_the_end_prevents_it(
    ends: list[Any], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    done: list[str] = []

    def step(name: str) -> Callable[..., None]:
        def act(*_: object, **__: object) -> None:
            done.append(name)
            if name == broken:
                raise OSError(name)

        return act

    monkeypatch.setattr("edgeinfer.watchdog.last_words.click.echo", step("stderr"))
    if broken == "threads":
        monkeypatch.setattr(threading.Timer, "start", no_thread)
    with pytest.raises(Gone):
        LastWords(step("keep"), step("tell")).speak(Crash(code="x", text="y"))
    assert done == ["tell", "stderr", "keep"]
    assert ends[-1] == 70


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["keep", "tell"])
def test_whatever_hangs_at_the_end_does_not_hold_it_up(hangs: str) -> None:
    code = (
        "import time\nfrom edgeinfer.watchdog.crash import Crash\nfrom edgeinfer.watchdog.last_words import LastWords\n"
        f"calls = {{'keep': lambda _: None, 'tell': lambda _: None, {hangs!r}: lambda _: time.sleep(600)}}\n"
        "LastWords(**calls).speak(Crash(code='x', text='y'))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True).returncode == 70


# Readiness


def books(state: Any = "running", captured: int = 0, inferred: int = 0, fps: float = 0.0) -> SourceSnapshot:
    return SourceSnapshot(state, None, captured, inferred, 0, {}, fps)


def view_of(
    serving_s: float | None, backend: str, sources: list[SourceSnapshot], news: Reason | None
) -> DaemonSnapshot:
    named = {str(number): source for number, source in enumerate(sources)}
    return DaemonSnapshot(model="m", backend=backend, serving_s=serving_s, sources=named, news=news)


@pytest.mark.parametrize(
    ("view", "ready"),
    [
        (view_of(None, "", [books("starting")], None), False),
        (view_of(0.1, "x", [books("starting")], None), False),
        (view_of(0.1, "x", [books(captured=3)], None), False),
        (view_of(QUIET_READY_S + 1, "x", [books(captured=3)], None), False),
        (view_of(0.1, "x", [books(captured=3, inferred=1), books("failed")], None), True),
        (view_of(QUIET_READY_S + 1, "x", [books("reconnecting"), books("failed")], None), True),
    ],
)
def test_ready_is_the_first_result_or_no_camera_to_wait_for(view: DaemonSnapshot, ready: bool) -> None:
    assert is_ready(view) is ready


def test_the_line_for_systemctl_status() -> None:
    building = Reason("engine-building", "Building 40%, 7 s; serving on onnxruntime-cpu meanwhile")
    view = view_of(3.0, "onnxruntime-cpu", [books(fps=29.8), books(fps=15), books("failed")], building)
    assert summary(view) == (
        "onnxruntime-cpu: 44.8 fps, sources: 2 running, 1 failed; "
        "Building 40%, 7 s; serving on onnxruntime-cpu meanwhile"
    )
    assert summary(view_of(None, "", [], None)) == "loading the model"
    assert summary(view_of(None, "", [], Reason("engine-building", "Building, 3 s"))) == "Building, 3 s"


class Heard:
    """A service manager's messages, by the second in which they were sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.sent: list[tuple[float, str]] = []
        monkeypatch.setattr(time, "monotonic", self.clock)
        for name in ("ready", "watchdog", "extend_timeout", "status"):
            monkeypatch.setattr(notify, name, lambda *_, name=name: self.sent.append((self.clock.now - 100, name)))

    def times(self, name: str) -> list[float]:
        return [at for at, sent in self.sent if sent == name]


@pytest.mark.parametrize(("usec", "period"), [("2000000", 0.5), ("20000000", 1.0), ("", 1.0)])
def test_heartbeats_leave_four_times_as_often_as_systemd_wants_them(
    monkeypatch: pytest.MonkeyPatch, usec: str, period: float
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    heard = Heard(monkeypatch)
    manager = ServiceManager()
    for _ in range(1000):
        manager.announce(view_of(1.0, "x", [], None))
        heard.clock.now += 0.01
    assert len(heard.times("watchdog")) == pytest.approx(10 / period, abs=1)


def test_a_start_is_extended_while_it_gets_on_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    manager = ServiceManager()
    for second in range(2000):
        heard.clock.now = 100.0 + second
        manager.announce(view_of(None, "", [], Reason("engine-building", f"{min(second, 300)} %")))
    extended = heard.times("extend_timeout")
    assert extended == [float(second) for second in range(300 + int(LOADING_S))]
    manager.announce(view_of(1.0, "x", [books(inferred=1)], None))
    assert len(heard.times("ready")) == 1
    before = len(extended)
    for _ in range(20):
        heard.clock.now += 1
        manager.announce(view_of(1.0, "x", [books(inferred=1)], Reason("engine-building", str(heard.clock.now))))
    assert len(heard.times("extend_timeout")) == before, "it is ready"
    assert len(heard.times("ready")) == 1


# What is remembered


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"STATE_DIRECTORY": "/var/lib/edgeinfer/a:/x", "XDG_STATE_HOME": "/y"}, Path("/var/lib/edgeinfer/a")),
        ({"XDG_STATE_HOME": "/y"}, Path("/y/edgeinfer")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/edgeinfer"),
    ],
)
def test_where_the_state_lives(environ: dict[str, str], root: Path) -> None:
    assert state_root(environ) == root


def test_a_crash_comes_back_as_it_was_written_and_without_credentials(tmp_path: Path) -> None:
    log = CrashLog(tmp_path / "state")
    assert log.read() is None
    text = "no frame of rtsp://user:hunter2@cam/1?token=hunter2"
    log.write(Crash(code="stalled", text=text, stage="inference", stacks=f"x\n{text}\n" * 9999, engine_key="ab"))
    crash = log.read()
    assert crash is not None
    assert (crash.code, crash.stage, crash.engine_key) == ("stalled", "inference", "ab")
    assert "hunter2" not in (tmp_path / "state" / "last_crash.json").read_text()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["last_crash.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"code": 1}', b"\xff" * 100])
def test_a_damaged_crash_file_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last_crash.json").write_bytes(content)
    assert CrashLog(tmp_path).read() is None


def test_without_a_folder_to_write_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = CrashLog(tmp_path / "file" / "state")
    log.write(Crash(code="x", text="y"))
    log.begin(Run(pid=1, boot_id="")).close()
    assert log.read() is None


@pytest.mark.parametrize(("boot", "told"), [(boot_id(), True), ("another boot", False)])
def test_a_run_that_ended_without_a_word_is_told_unless_the_machine_went_down(
    tmp_path: Path, boot: str, told: bool
) -> None:
    (tmp_path / "running").mkdir()
    for name in ("99999.json", "bad.json"):
        (tmp_path / "running" / name).write_text(
            json.dumps({"pid": 99999, "boot_id": boot, "engine_key": "abc"}) if name[0] == "9" else "{"
        )
    log = CrashLog(tmp_path)
    marker = log.begin(Run(pid=os.getpid(), boot_id=boot_id()))
    crash = log.read()
    assert (crash is not None) is told
    if crash is not None:
        assert (crash.code, crash.pid, crash.engine_key) == ("killed", 99999, "abc")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom edgeinfer.watchdog.crash import CrashLog, Run, boot_id\n"
        "CrashLog(Path(sys.argv[1])).begin(Run(pid=os.getpid(), boot_id=boot_id())).close()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "running" / f"{os.getpid()}.json").exists(), "a run that goes on was taken for dead"
    marker.close()
    assert [path.name for path in (tmp_path / "running").iterdir()] == ["bad.json"], "it is none of ours"


def test_the_newest_of_several_lost_runs_is_the_one_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()
    for pid, age in ((11, 300), (12, 100), (13, 200)):
        path = tmp_path / "running" / f"{pid}.json"
        path.write_text(json.dumps({"pid": pid, "boot_id": boot_id(), "version": "1", "model": "m", "backend": "b"}))
        os.utime(path, ns=((1000 - age) * 10**9,) * 2)
    log = CrashLog(tmp_path)
    log.begin(Run(pid=1, boot_id=boot_id())).close()
    crash = log.read()
    assert crash is not None
    assert (crash.pid, crash.t_ns, crash.version, crash.model, crash.backend) == (12, 900 * 10**9, "1", "m", "b")


def test_a_run_says_what_runs_the_model_and_is_told_with_it(tmp_path: Path) -> None:
    log = CrashLog(tmp_path)
    marker = log.begin(Run(pid=4242, boot_id=boot_id(), model="m@1"))
    path = tmp_path / "running" / "4242.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    marker.note("a backend with a long name", "key")
    marker.note("trt", "")
    found = json.loads(path.read_text())
    assert [found[key] for key in ("pid", "model", "backend", "engine_key")] == [4242, "m@1", "trt", ""]
    content = path.read_bytes()
    marker.close()
    marker.close()
    assert not path.exists()
    marker.note("x", "y")
    assert not path.exists(), "the run is over"
    path.write_bytes(content)  # as it is after a kill
    log.begin(Run(pid=1, boot_id=boot_id())).close()
    crash = log.read()
    assert crash is not None
    assert (crash.code, crash.backend, crash.model) == ("killed", "trt", "m@1")


def test_a_later_crash_takes_the_place_of_the_one_before_and_stacks_have_their_limit(tmp_path: Path) -> None:
    log = CrashLog(tmp_path)
    for number in range(2):
        log.write(Crash(code=f"c{number}", text="t\nt", stacks="s" * (MAX_STACKS + 5)))
    crash = log.read()
    assert crash is not None
    assert (crash.code, crash.text, len(crash.stacks)) == ("c1", "t t", MAX_STACKS)
    assert [path.name for path in tmp_path.iterdir()] == ["last_crash.json"]


def test_a_crash_that_can_not_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "last_crash.json").mkdir()
    CrashLog(tmp_path).write(Crash(code="x", text="y"))
    assert [path.name for path in tmp_path.iterdir()] == ["last_crash.json"]


def test_the_stacks_name_threads_and_functions() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="capture:front", daemon=True)
    thread.start()
    text = stacks()
    release.set()
    thread.join()
    assert "capture:front:" in text
    assert "test_the_stacks_name_threads_and_functions" in text.rpartition("\n\n")[2], "the one that asks comes last"


# The whole program


def test_files_of_somebody_else_beside_the_marks_of_runs_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "running"
    folder.mkdir()
    (tmp_path / "elsewhere.json").write_text(json.dumps({"pid": 7, "boot_id": boot_id()}))
    (folder / "shoes.json").write_text("{}")
    (folder / "12.json").write_text("my best time")
    (folder / "13.json").symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(folder / "14.json")
    (folder / "15.json").mkdir()
    before = sorted(path.name for path in folder.iterdir())
    log = CrashLog(tmp_path)
    log.begin(Run(pid=os.getpid(), boot_id=boot_id())).close()
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "12.json").read_text() == "my best time"
    assert log.read() is None


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "state" / "edgeinfer"


def last_crash(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "last_crash.json").read_text())
    return found


def daemon_status(ipc: str, condition: Callable[[StatusMessage], bool], timeout_s: float = 60) -> StatusMessage:
    with Subscriber(ipc, kinds=("status",)) as subscriber:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            message = subscriber.receive(1)
            if isinstance(message, StatusMessage) and message.source == DAEMON and condition(message):
                return message
    raise AssertionError("no such status")


QUICK = ("--set", "watchdog.deadline_s=2")
FAULTS = {
    "submit": ("inference", ["backend={name: tests.faults.backend, fault: submit}"]),
    "never": ("inference", ["backend={name: tests.faults.backend, fault: never}"]),
    "sink": ("publisher", ["sinks={tests.faults.sink: {}}"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stage_that_stands_still_ends_the_process_and_is_told_after_the_restart(
    daemon_process: Start, state: Path, ipc: str, fault: str
) -> None:
    stage, settings = FAULTS[fault]
    arguments = [part for setting in settings for part in ("--set", setting)]
    process = daemon_process("run", "--source", "demo:", "--bind", ipc, *QUICK, *arguments)
    if stage == "inference":  # the publisher still works, and says what happens before it does
        fatal = daemon_status(ipc, lambda message: message.state == "failed")
        assert fatal.reason is not None
        assert fatal.reason.code == "fatal"
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 70, stderr
    assert f"stage {stage} has not moved" in stderr
    assert "Current thread" in stderr
    assert "faults/backend.py" in stderr or "faults/sink.py" in stderr
    crash = last_crash(state)
    assert (crash["code"], crash["stage"]) == ("stalled", stage)
    assert "faults/" in crash["stacks"]
    daemon_process("run", "--source", "demo:", "--bind", ipc)
    told = daemon_status(ipc, lambda message: True).last_crash
    assert told
    assert (told.code, told.stage, told.t_ns) == ("stalled", stage, crash["t_ns"])


@pytest.mark.long
def test_a_stage_that_stands_still_when_all_files_have_been_read_is_noticed_too(
    cli: Cli, state: Path, clip: Path
) -> None:
    fault = f"backend={{name: tests.faults.backend, fault: never, after: {CLIP_FRAMES - 1}}}"
    process = cli(
        "run", "--source", str(clip), "--set", "publish=null", "--set", "model.max_batch=1", "--set", fault, *QUICK
    )
    assert process.returncode == 70, process.stderr
    assert last_crash(state)["stage"] == "inference"


def test_a_sticky_cuda_error_ends_the_process_at_once(daemon_process: Start, state: Path, ipc: str) -> None:
    settings = ("--set", "backend={name: tests.faults.backend, fault: cuda}")
    process = daemon_process("run", "--source", "demo:", "--bind", ipc, *settings)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 70, stderr
    assert "CUDA error 700" in stderr
    assert "inferred" not in stderr, "a summary means that the process went on"
    crash = last_crash(state)
    assert crash["code"] == "sticky-cuda-error"
    assert "faults/backend.py" in crash["stacks"]


@pytest.mark.long
def test_an_engine_that_loses_the_gpu_three_times_is_put_away(cli: Cli, state: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    key = put(cache).key
    fault = f"backend={{name: tests.faults.backend, fault: cuda, cache: {cache.root}}}"
    run = ("run", "--source", "demo:", "--set", "publish=null", "--frames", "20", "--set", fault)
    for strikes in (1, 2, 3):
        assert cli(*run).returncode == 70
        (engine,) = cache.entries()
        assert isinstance(engine, CachedEngine)
        assert engine.strikes == strikes
        assert last_crash(state)["engine_key"] == key
    process = cli(*run)
    assert process.returncode == 0, process.stderr
    assert cache.entries() == []
    assert (cache.quarantined / key / "engine.plan").exists()


def test_an_ordinary_failure_of_the_device_is_remembered_too(daemon_process: Start, state: Path, ipc: str) -> None:
    settings = ("--set", "backend={name: tests.faults.backend, fault: cuda, code: 1}")
    process = daemon_process("run", "--source", "demo:", "--bind", ipc, *settings)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 70, stderr
    assert last_crash(state)["code"] == "fatal"


@pytest.mark.parametrize(("room", "served"), [(1, True), (0, False)])
def test_a_gpu_without_memory_costs_frames_and_not_the_process(
    cli: Cli, state: Path, tmp_path: Path, clip: Path, room: int, served: bool
) -> None:
    """Batches of two don't fit; then batches of one do, or nothing does. Every frame is accounted for."""
    backend = f"backend={{name: tests.faults.backend, fault: oom, room: {room}}}"
    settings = ("--set", backend, "--set", "model.max_batch=4", "--set", "publish=null")
    output = ("--jsonl", "out", "--set", "sinks.jsonl.kinds=[detections, status]")
    process = cli("run", "--source", f"a={clip}", "--source", f"b={clip}", *settings, *output)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    last = {line["source"]: line for line in lines if line["kind"] == "status" and line["source"] != DAEMON}
    assert set(last) == {"a", "b"}
    for line in last.values():
        assert line["captured"] == line["inferred"] + line["dropped"] == CLIP_FRAMES
        assert (line["inferred"] > CLIP_FRAMES / 2) is served
    assert sum(line["dropped_by_reason"].get("memory", 0) for line in last.values()) > 0
    news = [line["reason"]["code"] for line in lines if line["kind"] == "status" and line["reason"]]
    assert "out-of-memory" in news


def test_a_killed_run_is_told_and_a_run_that_was_stopped_is_not(daemon_process: Start, state: Path, ipc: str) -> None:
    process = daemon_process("run", "--source", "demo:", "--bind", ipc)
    assert not daemon_status(ipc, lambda message: message.inferred > 0).last_crash
    process.kill()
    process.communicate()
    process = daemon_process("run", "--source", "demo:", "--bind", ipc)
    told = daemon_status(ipc, lambda message: message.inferred > 0).last_crash
    assert told
    assert told.code == "killed"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert not list((state / "running").iterdir())


@pytest.mark.long
def test_a_run_that_was_stopped_for_a_while_goes_on(daemon_process: Start, state: Path, ipc: str) -> None:
    """Ctrl-Z and fg: the stages have been silent for longer than their deadline, and none is to blame."""
    process = daemon_process("run", "--source", "demo:", "--bind", ipc, "--set", "watchdog.deadline_s=8")
    before = daemon_status(ipc, lambda message: message.inferred > 0)
    process.send_signal(signal.SIGSTOP)
    time.sleep(11)
    process.send_signal(signal.SIGCONT)
    daemon_status(ipc, lambda message: message.inferred > before.inferred + 30)
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stood still" in stderr


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as listening:
        monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        yield listening


def test_the_life_of_a_service(daemon_process: Start, state: Path, ipc: str, listener: NotifySocket) -> None:
    """Loading, ready, alive, stopping, in this order; and a SIGTERM under load ends it at once, with its children."""
    settings = ("--set", "backend={name: tests.faults.backend, start_s: 1.5}", "--set", "sources.d.realtime=false")
    process = daemon_process("run", "--source", "d=demo:", "--bind", ipc, *settings)
    ready = listener.wait_for(lambda fields: "READY" in fields, "READY=1")
    assert ready["STATUS"].startswith("onnxruntime-cpu: ")
    before = [fields for fields in listener.read() if "READY" not in fields]
    assert any(fields.get("EXTEND_TIMEOUT_USEC") == "15000000" for fields in before)
    assert any(fields.get("STATUS") == "loading the model" for fields in before)
    beats = len([fields for fields in listener.read() if "WATCHDOG" in fields])
    listener.wait_for(lambda _: len([f for f in listener.read() if "WATCHDOG" in f]) > beats + 4, "more heartbeats")
    children = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert time.monotonic() - started < 5
    assert not [child for child in children if child.is_running()]
    assert [fields for fields in listener.read() if "STOPPING" in fields] == [{"STOPPING": "1"}]


def test_a_stage_that_stands_still_is_no_orderly_stop(
    daemon_process: Start, state: Path, ipc: str, listener: NotifySocket
) -> None:
    settings = ("--set", "backend={name: tests.faults.backend, fault: submit}", *QUICK)
    process = daemon_process("run", "--source", "demo:", "--bind", ipc, *settings)
    process.communicate(timeout=60)
    assert process.returncode == 70
    said = listener.read()
    assert any("READY" in fields for fields in said)
    assert any("WATCHDOG" in fields for fields in said)
    assert not any("STOPPING" in fields for fields in said)


def test_a_camera_that_is_down_withholds_neither_ready_nor_heartbeat(
    daemon_process: Start, state: Path, ipc: str, listener: NotifySocket
) -> None:
    daemon_process("run", "--source", "demo:", "--camera", "63", "--bind", ipc)
    listener.wait_for(lambda fields: "READY" in fields, "READY=1")
    listener.wait_for(lambda fields: "1 failed, 1 running" in fields.get("STATUS", ""), "both sources' states")
    beats = len([fields for fields in listener.read() if "WATCHDOG" in fields])
    listener.wait_for(lambda _: len([f for f in listener.read() if "WATCHDOG" in f]) > beats + 4, "more heartbeats")
