"""`backend: auto`: serve on ONNX Runtime while the engine is built, swap between two frames, stay where that fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgeinfer.backends import onnxruntime, tensorrt
from edgeinfer.commands import build
from edgeinfer.commands._engine_options import task_of
from edgeinfer.config.card import Model, ToleranceCard, load_model
from edgeinfer.config.settings import Config, load_config
from edgeinfer.daemon import selection
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.selection import choose
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.engine import machine, toolkit
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.errors import BuildError, CrashLoopError
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.manifest import Tolerance
from edgeinfer.errors import EdgeinferError, OutOfMemoryError, UnavailableError
from edgeinfer.interfaces import Backend
from edgeinfer.messages import DAEMON, DetectionsMessage, InfoMessage, Message, StatusMessage
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.types import Result


class Recorder:
    """A sink that keeps everything."""

    blocks = False

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def write(self, message: Message, result: Result | None) -> None:
        self.messages.append(message)

    def service(self) -> None:
        pass

    def close(self) -> None:
        pass

    def detections(self) -> list[DetectionsMessage]:
        return [message for message in self.messages if isinstance(message, DetectionsMessage)]

    def news(self) -> list[str]:
        found = [
            m.reason.code for m in self.messages if isinstance(m, StatusMessage) and m.source == DAEMON and m.reason
        ]
        return [code for i, code in enumerate(found) if i == 0 or found[i - 1] != code]


class Script:
    """What the stand-in for a TensorRT build does. The engine it gives is ONNX Runtime under another name."""

    def __init__(self) -> None:
        self.cached = False
        self.go = threading.Event()
        self.failure: EdgeinferError | None = None
        self.impossible: EdgeinferError | None = None
        self.cancelled = False

    def prepared(self, model: Model, max_batch: int | None, options: Any) -> Any:
        if self.impossible:
            raise self.impossible
        script = self

        class Prepared:
            cached = script.cached

            def open(self, on_progress: OnProgress, cancel: threading.Event) -> Backend:
                started = time.monotonic()
                while not script.go.wait(0.02):
                    on_progress(BuildProgress("Building", 0.5, time.monotonic() - started))
                    if cancel.is_set():
                        script.cancelled = True
                        raise BuildError("cancelled")
                if script.failure:
                    raise script.failure
                backend = onnxruntime.open(model, max_batch, onnxruntime.Options())
                backend.name = "tensorrt-fp16"
                return backend

        return Prepared()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(tensorrt, "Preparation", script.prepared)
    return script


def config(backend: str, frames: int = 40) -> Config:
    return load_config(
        None,
        [
            ("publish", None),
            ("backend.name", backend),
            ("sources.d", {"uri": "demo:", "realtime": False, "frames": frames}),
        ],
    )


def run(backend: str, during: Callable[[Recorder], None] = lambda _: None) -> tuple[Recorder, Daemon, DaemonSnapshot]:
    recorder = Recorder()
    daemon = Daemon(config(backend), {"recorder": recorder})
    with Signals() as signals:
        daemon.start()
        while daemon.turn():
            during(recorder)
            time.sleep(0.01)
        return recorder, daemon, daemon.stop(Patience(signals))


@pytest.mark.slow
def test_the_engine_takes_over_between_two_frames(script: Script) -> None:
    def release_after_ten(recorder: Recorder) -> None:
        if len(recorder.detections()) >= 10:
            script.go.set()

    recorder, _, summary = run("auto", release_after_ten)
    backends = [message.backend for message in recorder.detections()]
    swap = backends.index("tensorrt-fp16")
    assert swap >= 10
    assert set(backends[:swap]) == {"onnxruntime-cpu"}
    assert set(backends[swap:]) == {"tensorrt-fp16"}
    assert [message.seq for message in recorder.detections()] == list(range(40))
    assert recorder.news() == ["engine-building", "engine-ready"]
    assert [m.backend for m in recorder.messages if isinstance(m, InfoMessage)][-1] == "tensorrt-fp16"
    assert summary.backend == "tensorrt-fp16"


@pytest.mark.slow
def test_a_build_that_fails_leaves_the_fallback_serving(script: Script) -> None:
    script.go.set()
    script.failure = BuildError("node 3 'x' (NonMaxSuppression): not supported", "export it with another opset")
    recorder, daemon, _ = run("auto")
    assert {message.backend for message in recorder.detections()} == {"onnxruntime-cpu"}
    assert len(recorder.detections()) == 40
    assert recorder.news()[-1] == "engine-failed"
    assert daemon.bulletin.news is not None
    assert "NonMaxSuppression" in daemon.bulletin.news.text
    assert "staying on onnxruntime-cpu" in daemon.bulletin.news.text


@pytest.mark.slow
def test_a_cached_engine_is_used_from_the_first_frame(script: Script) -> None:
    script.cached = True
    script.go.set()
    recorder, _, _ = run("auto")
    assert {message.backend for message in recorder.detections()} == {"tensorrt-fp16"}


@pytest.mark.slow
def test_a_cached_engine_that_can_not_be_loaded_leaves_onnx_runtime(script: Script) -> None:
    script.cached = True
    script.go.set()
    script.failure = BuildError("loading the engine failed: TensorRT gave no reason")
    recorder, _, summary = run("auto")
    assert {message.backend for message in recorder.detections()} == {"onnxruntime-cpu"}
    assert len(recorder.detections()) == 40
    assert recorder.news()[-1] == "engine-failed"
    assert summary.backend == "onnxruntime-cpu"


@pytest.mark.slow
def test_without_tensorrt_auto_is_onnx_runtime(script: Script) -> None:
    script.impossible = UnavailableError("the Python module tensorrt is not installed")
    recorder, _, _ = run("auto")
    assert {message.backend for message in recorder.detections()} == {"onnxruntime-cpu"}
    assert recorder.news() == []


@pytest.mark.slow
def test_tensorrt_by_name_waits_for_its_engine(script: Script) -> None:
    def release_when_told(recorder: Recorder) -> None:
        if recorder.news():
            script.go.set()

    recorder, _, _ = run("tensorrt", release_when_told)
    assert {message.backend for message in recorder.detections()} == {"tensorrt-fp16"}
    assert len(recorder.detections()) == 40
    assert recorder.news()[0] == "engine-building"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["impossible", "failure"])
def test_tensorrt_by_name_does_not_fall_back(script: Script, where: str) -> None:
    script.go.set()
    setattr(script, where, UnavailableError("no GPU"))
    with pytest.raises(UnavailableError, match="no GPU"):
        run("tensorrt")


@pytest.mark.slow
def test_the_end_of_a_run_gives_up_the_build(script: Script) -> None:
    run("auto")
    deadline = time.monotonic() + 10
    while not script.cancelled:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_an_engine_that_crashes_again_and_again_is_told_and_done_without(script: Script) -> None:
    script.impossible = CrashLoopError("engine abc has ended its process 3 times, was built again, and did so again")
    recorder, daemon, _ = run("auto")
    assert {message.backend for message in recorder.detections()} == {"onnxruntime-cpu"}
    assert recorder.news() == ["engine-failed"]
    assert daemon.bulletin.news is not None
    assert "serving on onnxruntime" in daemon.bulletin.news.text
    with pytest.raises(CrashLoopError):
        run("tensorrt")


def threads_of(backend: Backend | None) -> str:
    assert backend is not None
    backend.close()
    return backend.detail.rpartition(", ")[2]


@pytest.mark.slow
def test_beside_a_build_the_fallback_leaves_cores_to_it_and_gets_them_where_none_comes(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    model, settings = load_model("nanodet-g"), config("auto")
    choice = choose(model, settings, None)
    assert choice.instead is not None
    assert threads_of(choice.now) == "4 threads each"
    assert threads_of(choice.instead(threading.Event())) == "8 threads each"
    script.cached = True
    cached = choose(model, settings, None)
    assert (cached.now, cached.instead is None) == (None, False)
    assert cached.instead is not None
    assert threads_of(cached.instead(threading.Event())) == "8 threads each"
    script.impossible = UnavailableError("no GPU")
    assert threads_of(choose(model, settings, None).now) == "8 threads each"
    script.impossible = OutOfMemoryError("CUDA has no memory now")
    assert threads_of(choose(model, settings, None).now) == "4 threads each"


@pytest.mark.slow
def test_a_reload_whose_engine_can_not_be_had_serves_on_all_cores(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    script.go.set()
    script.failure = BuildError("not supported")
    built = selection.build(load_model("nanodet-g"), config("auto"), None, lambda _: None, threading.Event())
    assert threads_of(built.backend) == "8 threads each"
    assert built.later is None


def test_the_backend_asks_for_the_engine_that_the_build_command_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same settings on both sides name the same engine, tolerance and calibration included."""
    here = Target(flavour="tensorrt", tensorrt=(10, 3, 0, 30), gpu="Orin", compute_capability="8.7")
    kit = SimpleNamespace(flavour="tensorrt", version=here.tensorrt)
    for name in ("load", "find"):
        monkeypatch.setattr(toolkit, name, lambda *_: kit)
    monkeypatch.setattr(machine, "detect", lambda *_, **__: here)
    context = build.command.make_context("build", ["nanodet-g", "--opt-level", "2", "--workspace", "1G"])
    ignored = ("cache_dir", "as_json", "verbose", "rebuild", "dry_run")
    task = task_of({key: value for key, value in context.params.items() if key not in ignored}, with_extras=True)
    prepared = tensorrt.Preparation(load_model("nanodet-g"), None, tensorrt.Options(opt_level=2, workspace="1G"))
    assert prepared._task is not None
    assert prepared._task.key == task.key
    limits = task.extras.limits  # the command has its own --timeout
    assert msgspec.structs.replace(prepared._task.extras, limits=limits) == task.extras


def test_the_cards_tolerance_judges_the_engine() -> None:
    card = load_model("nanodet-g").card
    assert tensorrt.extras_of(card, tensorrt.Options()).tolerance is None
    strict = msgspec.structs.replace(card, tolerance=ToleranceCard(max=0.01, mean=0.001))
    assert tensorrt.extras_of(strict, tensorrt.Options()).tolerance == Tolerance(0.01, 0.001)
