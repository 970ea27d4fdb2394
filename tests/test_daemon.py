"""The daemon as a whole, in this process: its picture, its stages, its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgeinfer.daemon import daemon as module
from edgeinfer.daemon.daemon import MAIN_PATIENCE, Daemon
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.errors import ConfigError, EdgeinferError, FatalError, TemporaryError
from edgeinfer.flow.statistics import STAGES
from edgeinfer.systemd import notify
from edgeinfer.web import readiness
from tests.scripted_backend import Scripted
from tests.test_reload import SMALL, Recorder, Run, assert_untouched, backends, model, run

__all__ = ["backends", "model", "run"]


@pytest.fixture(autouse=True)
def no_time_for_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_S", 0.0)


def test_without_sources_there_is_nothing_to_run(model: str) -> None:
    with pytest.raises(ConfigError, match="no sources"):
        Run({"model": {"path": model}})


def test_the_picture_is_of_what_runs(run: Run) -> None:
    run.until_results("a")
    seen = run.daemon.snapshot()
    assert seen.model.startswith("one@")
    assert (seen.backend, seen.bound, seen.faults, seen.news, seen.shortage) == ("scripted", True, (), None, None)
    assert seen.detail.startswith("batches up to")
    assert "onnxruntime" in seen.versions
    assert seen.serving_s is not None
    assert seen.serving_s > 0
    assert list(seen.sources) == ["a"]
    assert seen.sources["a"].inferred >= 5
    assert list(seen.latency_ms) == list(STAGES)
    assert (seen.rate, seen.subscribers, seen.engine_key) == (1.0, None, "")
    assert (seen.total.state, seen.total.captured) == ("running", seen.sources["a"].captured)
    assert readiness.ready(seen, 1).ok


def test_no_time_of_a_frame_is_without_a_name(run: Run) -> None:
    """The stages are measured one by one, each from where the one before it ended."""
    run.until_results("a")
    for message in run.recorder.detections("a"):
        timing = message.timing_ms
        named = [getattr(timing, stage) for stage in STAGES if stage not in ("receive", "total")]
        assert sum(named) == pytest.approx(timing.total, rel=0.01, abs=0.005), "0.005 is the rounding"
        assert min(named) >= 0
        assert 0 <= timing.receive <= timing.queue  # type: ignore[operator]


@pytest.mark.slow
def test_a_source_whose_driver_hangs_ends_the_run_only_when_no_other_is_left(model: str) -> None:
    run = Run({"model": {"path": model}, "sources": {"a": SMALL, "b": SMALL}})
    try:
        run.until_results("a")
        captures = run.daemon.sources.captures
        captures["a"].stuck = True
        assert run.daemon.turn()
        captures["b"].stuck = True
        with pytest.raises(FatalError, match=r"never came back \(a, b\)"):
            run.daemon.turn()
    finally:
        run.stop()


def test_before_a_model_is_there_the_picture_says_so(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_S", 1e9)
    waiting = Run({"model": {"path": model}, "sources": {"a": SMALL}})
    assert waiting.daemon.turn()
    seen = waiting.daemon.snapshot()
    assert (seen.backend, seen.serving_s, seen.total.state) == ("", None, "starting")
    assert seen.model.startswith("one@")
    assert waiting.daemon.loading
    assert [reason.code for reason in readiness.ready(seen, 1).reasons] == ["model", "sources"]
    waiting.stop()


def test_the_engine_that_serves_is_named_and_can_be_blamed(run: Run, backends: list[Scripted]) -> None:
    blamed: list[int] = []
    run.daemon.blame_engine()  # nobody to blame
    backends[0].engine_key = "cafe"  # type: ignore[attr-defined]
    backends[0].blame = lambda: blamed.append(1)  # type: ignore[attr-defined]
    assert run.daemon.snapshot().engine_key == "cafe"
    run.daemon.blame_engine()
    assert blamed == [1]


def test_a_stage_that_died_is_a_fault_and_ends_the_run(run: Run) -> None:
    run.daemon.publisher.error = RuntimeError("a bug")
    seen = run.daemon.snapshot()
    assert [(reason.code, reason.text) for reason in seen.faults] == [("publisher", "RuntimeError: a bug")]
    assert not readiness.alive(seen).ok
    with pytest.raises(FatalError, match="publisher: RuntimeError: a bug"):
        run.daemon.turn()
    run.daemon.publisher.error = TemporaryError("as it was raised")
    with pytest.raises(TemporaryError, match="as it was raised"):
        run.daemon.turn()
    run.daemon.publisher.error = None


def test_a_main_loop_that_does_not_turn_is_a_fault(run: Run) -> None:
    deadline_s = MAIN_PATIENCE * 5.0
    run.daemon.turn()
    run.daemon.heart.forgive(-deadline_s + 1)
    assert run.daemon.snapshot().faults == ()
    run.daemon.heart.forgive(-2)
    (fault,) = run.daemon.snapshot().faults
    assert fault.code == "supervisor"
    run.daemon.turn()
    assert run.daemon.snapshot().faults == ()


def test_the_main_thread_is_judged_only_where_somebody_restarts_the_process(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {heart.stage for heart in run.daemon.hearts()} == {"inference", "publisher"}
    monkeypatch.setattr(notify, "enabled", lambda: True)
    assert {heart.stage for heart in run.daemon.hearts()} == {"main", "inference", "publisher"}
    run.stop()
    assert {heart.stage for heart in run.daemon.hearts()} == {"main"}


def test_the_loop_ends_with_the_sources_and_calls_back_meanwhile(model: str) -> None:
    ending = Run({"model": {"path": model}, "sources": {"a": {**SMALL, "frames": 20}}})
    turns: list[int] = []
    ending.daemon.run(lambda: False, lambda: turns.append(1))
    summary = ending.stop()
    assert turns
    assert summary.sources["a"].inferred == 20
    assert summary.sources["a"].state == "ended"
    assert_untouched(ending)


def test_the_loop_ends_when_it_is_told_to(run: Run) -> None:
    asked: list[int] = []
    run.daemon.run(lambda: bool(asked), lambda: asked.append(1))
    assert len(asked) == 1


def test_the_summary_is_of_the_whole_run(run: Run) -> None:
    run.reload(sources={"a": SMALL, "b": SMALL})
    run.until_results("b")
    run.reload(sources={"a": SMALL})
    run.until(lambda: run.recorder.info().sources == ["a"], "b's end")
    assert list(run.daemon.snapshot().sources) == ["a"]
    summary = run.stop()
    assert set(summary.sources) == {"a", "b"}
    assert summary.backend == "scripted"
    assert summary.serving_s is not None
    assert not run.daemon.hung


def test_a_port_that_can_not_be_bound_leaves_no_sink_open(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    closed: list[str] = []

    class Sink(Recorder):
        def close(self) -> None:
            closed.append("publish")

    monkeypatch.setattr(module, "open_sinks", lambda configs: {"publish": Sink()})
    with pytest.raises(EdgeinferError, match=r"http\.bind"):
        Run({"model": {"path": model}, "sources": {"a": SMALL}, "http": {"bind": "nonsense"}})
    assert closed == ["publish"]


@pytest.fixture
def daemon_of(model: str) -> Iterator[Any]:
    """Daemons that are stopped in the end, whatever becomes of them."""
    made: list[Daemon] = []

    def make(**file: Any) -> Run:
        run = Run({"model": {"path": model}, "sources": {"a": SMALL}, **file})
        made.append(run.daemon)
        return run

    yield make
    with Signals() as signals:
        for daemon in made:
            daemon.stop(Patience(signals, hurry=True))


@pytest.mark.slow
def test_limits_end_each_source(daemon_of: Any) -> None:
    run = daemon_of(frames=7, sources={"a": SMALL, "b": SMALL})
    while run.daemon.turn():
        pass
    run.daemon.publisher.join(0.5)
    assert {name: len(run.recorder.detections(name)) for name in ("a", "b")} == {"a": 7, "b": 7}


@pytest.mark.slow
def test_a_reload_changes_limits_and_batching_at_once(run: Run) -> None:
    assert run.reload(batching={"mode": "throughput", "wait_ms": 1.0}).changes == ("batching: changed",)
    inference = run.daemon._inference
    assert inference is not None
    assert inference.batching.config.mode == "throughput"
    target = len(run.recorder.detections("a")) + 40
    assert run.reload(frames=target).ok
    assert inference.delivery.limit == target
    run.daemon.run(lambda: False)
    run.stop()
    assert len(run.recorder.detections("a")) == target
