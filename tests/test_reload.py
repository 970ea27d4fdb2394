"""A configuration that changes while the daemon runs: what is done, what is refused, and that nobody else notices."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeinfer.backends import onnxruntime, tensorrt
from edgeinfer.config.card import Model
from edgeinfer.config.settings import Config, load_config
from edgeinfer.daemon import daemon, reloading, sourceset
from edgeinfer.daemon.changes import ReloadPlan, plan_reload
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.retrying import Retries
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.decoders import boxes_scores
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.errors import BuildError, BuildKilledError
from edgeinfer.errors import ConfigError, EdgeinferError, StickyError, UnavailableError
from edgeinfer.flow import succession
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.compose import Identity
from edgeinfer.flow.outbox import DEPTH, Outbox
from edgeinfer.flow.publisher import Publisher
from edgeinfer.flow.statistics import Statistics
from edgeinfer.interfaces import Backend
from edgeinfer.messages import (
    DAEMON,
    DetectionsMessage,
    InfoMessage,
    Message,
    ModelInfo,
    ReloadReport,
    StatusMessage,
)
from edgeinfer.sources._clock import stamped
from edgeinfer.systemd import notify
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.types import Detections, Frame, Result, Timing
from tests import fitting_source, scripted_backend
from tests.scripted_backend import Scripted
from tests.test_hostile_networks import endless
from tests.test_messages import example

WAIT_S = 60.0

# The plan: two configurations → what is to be done.

SOURCES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.fixed_dictionaries(
        {"uri": st.just("demo:")},
        optional={"fps": st.sampled_from([5, 10]), "max_fps": st.sampled_from([1, 2]), "realtime": st.booleans()},
    ),
    min_size=1,
)
SINKS = st.dictionaries(st.just("jsonl"), st.fixed_dictionaries({"path": st.sampled_from(["x", "y"])}))
FILES = st.fixed_dictionaries(
    {"sources": SOURCES},
    optional={
        "model": st.fixed_dictionaries(
            {}, optional={"score": st.sampled_from([0.1, 0.2]), "max_batch": st.sampled_from([1, 2])}
        ),
        "sinks": SINKS,
        "frames": st.sampled_from([1, 2]),
        "backend": st.sampled_from(["auto", "onnxruntime"]),
    },
)


def config_of(file: dict[str, Any]) -> Config:
    return load_config(None, list(file.items()))


@given(FILES)
@settings(deadline=None)
@pytest.mark.slow
def test_nothing_is_done_where_nothing_has_changed(file: dict[str, Any]) -> None:
    plan = plan_reload(config_of(file), config_of(file))
    assert plan == ReloadPlan(False, False, frozenset(), (), (), ())


@given(FILES, FILES)
@settings(deadline=None)
@pytest.mark.slow
def test_the_plan_leads_from_one_configuration_to_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = config_of(old), config_of(new)
    plan = plan_reload(before, after)
    both = before.sources.keys() & after.sources.keys()
    without_pace = {name: {**source, "max_fps": None} for name, source in old["sources"].items()}
    without_pace_after = {name: {**source, "max_fps": None} for name, source in new["sources"].items()}
    defaults = {"fps": 30, "realtime": True}
    assert plan.restart == {n for n in both if {**defaults, **without_pace[n]} != {**defaults, **without_pace_after[n]}}
    sinks = {name: sink for name, sink in before.sinks.items() if name not in plan.close_sinks}
    assert {**sinks, **{name: after.sinks[name] for name in plan.open_sinks}} == after.sinks
    assert plan.build == (before.backend != after.backend or before.model.max_batch != after.model.max_batch)
    assert plan.decoder or before.model == after.model
    assert bool(plan.changes) == (before != after)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("publish.bind", "ipc:///tmp/elsewhere", "publish.bind: can't be changed"),
        ("publish.high_water_mark", 5, "publish.high_water_mark: can't be changed"),
        ("publish", None, "publish: can't be changed"),
        ("sinks.jsonl.path", "-", "standard output"),
        ("sources", {}, "no sources"),
        ("http", {"web": True}, "http: can't be changed"),
    ],
)
def test_what_can_not_be_changed_is_refused(key: str, value: Any, says: str) -> None:
    old = config_of({"sources": {"a": "demo:"}})
    new = load_config(None, [("sources", {"a": "demo:"}), (key, value)])
    with pytest.raises(ConfigError, match=says):
        plan_reload(old, new)


def test_what_changed_is_told_without_values() -> None:
    old = config_of({"sources": {"a": {"uri": "demo:", "fps": 5}, "b": "demo:"}, "model": {"score": 0.5}})
    new = config_of({"sources": {"a": {"uri": "demo:", "fps": 6, "max_fps": 2}, "c": "demo:"}, "model": {"iou": 0.5}})
    assert plan_reload(old, new).changes == (
        "model: score, iou changed",
        "sources.a: max_fps, fps changed; opened again",
        "sources.c: added",
        "sources.b: removed",
    )


# A whole daemon, in this process.


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

    def detections(self, source: str) -> list[DetectionsMessage]:
        return [m for m in list(self.messages) if isinstance(m, DetectionsMessage) and m.source == source]

    def statuses(self, source: str) -> list[StatusMessage]:
        return [m for m in list(self.messages) if isinstance(m, StatusMessage) and m.source == source]

    def info(self) -> InfoMessage:
        return [m for m in list(self.messages) if isinstance(m, InfoMessage)][-1]

    def codes(self) -> set[str]:
        return {status.reason.code for status in self.statuses(DAEMON) if status.reason}


class Run:
    """A daemon whose configuration file is `file`, driven by the test."""

    def __init__(self, file: dict[str, Any]) -> None:
        self.file = file
        self.recorder = Recorder()
        self.daemon = Daemon(self._read(), {"recorder": self.recorder}, self._read)
        self.requests = 0
        self.reports: list[ReloadReport] = []
        self.daemon.start()

    def _read(self) -> Config:
        return load_config(None, [("publish", None), *self.file.items()])

    def _turn(self) -> bool:
        """One turn of the daemon; a reload that has come to its end is noted."""
        going_on, report = self.daemon.turn(), self.daemon.reloader.report
        if report.finished > (self.reports[-1].finished if self.reports else 0):
            self.reports.append(report)
        return going_on

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self._turn(), f"the run has ended before {what}"
            assert time.monotonic() < deadline, f"waited {WAIT_S:.0f} s for {what}"
            time.sleep(0.005)

    def until_results(self, source: str, more: int = 5) -> None:
        seen = len(self.recorder.detections(source))
        self.until(lambda: len(self.recorder.detections(source)) >= seen + more, f"results of {source}")

    def request(self) -> None:
        self.requests += 1
        self.daemon.reloader.request(self.requests)

    def reload(self, **changes: Any) -> ReloadReport:
        """Changes top-level keys of the file and waits for the outcome."""
        self.file = {**self.file, **changes}
        self.request()
        self.until(lambda: self.reports and self.reports[-1].finished >= self.requests, "the end of the reload")
        return self.reports[-1]

    def stop(self) -> DaemonSnapshot:
        with Signals() as signals:
            return self.daemon.stop(Patience(signals, hurry=True))


SMALL = {"uri": "demo:", "width": 64, "height": 64, "realtime": False}
"""Gives every frame as fast as it is taken and never drops one: a gap is ours."""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return network(tmp_path, "one", ["thing", "person"], [16, 14, 48, 50])


def network(folder: Path, name: str, labels: list[str], box: list[float], size: int = 64) -> str:
    """A network that always sees one object, of the last class, and its card. Returns its path."""
    scores = np.full((1, 1, len(labels)), 0.1, np.float32)
    scores[0, 0, -1] = 0.9
    constants = {"b": np.array([[box]], np.float32), "s": scores, "zero": np.array(0, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["b", "nothing"], ["boxes"]),
        helper.make_node("Add", ["s", "nothing"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, len(labels)]),
        ],
        [onnx.numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    card = {
        "name": name,
        "file": path.name,
        "labels": labels,
        "decoder": {"name": "boxes_scores"},
        "input": {"name": "x", "width": size, "height": size, "color": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
    return str(path)


@pytest.fixture
def backends() -> Iterator[list[Scripted]]:
    scripted_backend.opened.clear()
    yield scripted_backend.opened
    scripted_backend.opened.clear()


@pytest.fixture(autouse=True)
def no_time_for_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "JOIN_S", 0.0)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd hears: a word for every reload that begins."""
    told: list[str] = []
    monkeypatch.setattr(notify, "reloading", lambda: told.append("RELOADING"))
    return told


@pytest.fixture
def run(model: str, backends: list[Scripted]) -> Iterator[Run]:
    run = Run({"model": {"path": model}, "backend": "tests.scripted_backend", "sources": {"a": SMALL}})
    run.until_results("a")
    yield run
    run.stop()


def assert_untouched(run: Run, source: str = "a") -> None:
    """Every frame captured was published, once, in order."""
    found = run.recorder.detections(source)
    assert [m.seq for m in found] == list(range(len(found)))
    assert [m.frame_id for m in found] == list(range(len(found)))
    assert {m.dropped for m in found} == {0}
    for status in run.recorder.messages:
        if isinstance(status, StatusMessage):
            assert status.captured == status.inferred + status.dropped + status.in_flight


@pytest.mark.slow
def test_sources_come_and_go_and_change_and_the_others_do_not_notice(run: Run) -> None:
    for sources in (
        {"a": SMALL, "b": SMALL},
        {"a": SMALL, "b": SMALL, "c": SMALL},
        {"a": SMALL, "b": {**SMALL, "width": 96}, "c": SMALL},
        {"a": SMALL, "c": {**SMALL, "max_fps": 10}},
        {"a": SMALL, "b": SMALL},
    ):
        assert run.reload(sources=sources).ok
        wanted = list(sources)
        run.until(lambda: run.recorder.info().sources == wanted, "info")  # noqa: B023 (called at once)
        for name in sources:
            run.until_results(name)
    summary = run.stop()
    assert_untouched(run)
    assert run.recorder.statuses(DAEMON)[-1].captured == sum(books.captured for books in summary.sources.values())
    assert {m.width for m in run.recorder.detections("b")} == {64, 96}
    assert {status.state for status in run.recorder.statuses("a")} <= {"starting", "running", "ended"}


def test_a_removed_source_says_goodbye_and_comes_back_in_its_old_books(run: Run) -> None:
    run.reload(sources={"a": SMALL, "b": SMALL})
    run.until_results("b")
    report = run.reload(sources={"a": SMALL})
    assert report.changes == ("sources.b: removed",)
    run.until(lambda: run.recorder.info().sources == ["a"], "info without b")
    of_b = [m for m in run.recorder.messages if m.source == "b"]
    assert isinstance(of_b[-1], StatusMessage)
    assert of_b[-1].state == "ended"
    assert of_b[-1].reason is not None
    assert of_b[-1].reason.code == "removed"
    assert of_b[-1].in_flight == 0
    assert run.daemon.sources._mailbox is not None
    assert set(run.daemon.sources._mailbox._lanes) == {"a"}
    before = len(run.recorder.detections("b"))
    run.until_results("a")
    assert len([m for m in run.recorder.messages if m.source == "b"]) == len(of_b)
    total = run.recorder.statuses(DAEMON)
    assert [s.captured for s in total] == sorted(s.captured for s in total), "the daemon's counters never fall"
    run.reload(sources={"a": SMALL, "b": SMALL})
    run.until_results("b")
    summary = run.stop()
    found = run.recorder.detections("b")
    assert [m.seq for m in found] == list(range(len(found)))
    assert found[before].frame_id >= found[before - 1].frame_id + 1
    assert len({m.session for m in run.recorder.messages}) == 1
    assert set(summary.sources) == {"a", "b"}


def test_thresholds_change_between_two_frames_and_nothing_is_loaded_again(
    run: Run, model: str, backends: list[Scripted]
) -> None:
    report = run.reload(model={"path": model, "score": 0.95})
    assert report.changes == ("model: score changed",)
    run.until(lambda: not run.recorder.detections("a")[-1].detections, "an empty scene")
    run.until_results("a")
    run.stop()
    assert_untouched(run)
    counts = [len(m.detections) for m in run.recorder.detections("a")]
    assert counts == sorted(counts, reverse=True), "from one object in each frame to none, once"
    assert len(backends) == 1
    assert backends[0].closed == 1


def test_another_model_takes_over_with_its_decoder_and_labels(
    run: Run, tmp_path: Path, backends: list[Scripted]
) -> None:
    other = network(tmp_path, "two", ["a", "b", "cat"], [2, 2, 20, 20], size=32)
    report = run.reload(model={"path": other})
    assert report.ok, report.text
    run.until_results("a")
    run.until(lambda: run.recorder.info().model.name == "two", "info")
    run.stop()
    assert_untouched(run)
    found = run.recorder.detections("a")
    swap = [m.model.startswith("two@") for m in found].index(True)
    for index, message in enumerate(found):
        (seen,) = message.detections
        assert message.model.startswith("one@" if index < swap else "two@")
        assert seen.label == ("person" if index < swap else "cat")
        assert seen.box == ((16, 14, 48, 50) if index < swap else (4, 4, 40, 40))
    assert run.daemon.model.card.name == "two"
    assert [backend.closed for backend in backends] == [1, 1]


def test_a_model_file_that_was_replaced_is_loaded(run: Run, tmp_path: Path) -> None:
    network(tmp_path, "one", ["x", "dog"], [16, 14, 48, 50])
    report = run.reload()
    assert report.changes == ("model: its files changed",)
    run.until(lambda: run.recorder.detections("a")[-1].detections[0].label == "dog", "the new label")


@pytest.mark.parametrize("where", ["submit", "collect"])
@pytest.mark.parametrize("fail_at", [3, 7])
def test_a_backend_that_fails_in_its_first_frames_is_rolled_back(
    run: Run, where: str, fail_at: int, backends: list[Scripted]
) -> None:
    faulty = {"name": "tests.scripted_backend", "fail_at": fail_at, "where": where}
    report = run.reload(backend=faulty, sources={"a": SMALL, "b": SMALL})
    assert not report.ok
    assert f"scripted failure in {where}" in report.text
    assert "back on scripted" in report.text
    run.until_results("a", 30)
    assert run.recorder.info().sources == ["a"], "a reload is applied whole or not at all"
    assert "reload-failed" in run.recorder.codes()
    assert [backend.closed for backend in backends] == [0, 1]
    assert run.reload(backend="tests.scripted_backend").ok
    run.stop()
    assert_untouched(run)


def open_files() -> set[str]:
    return {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def test_a_roll_back_closes_the_sinks_that_waited_for_it(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "new.jsonl"
    faulty = {"name": "tests.scripted_backend", "fail_at": 3}
    assert not run.reload(backend=faulty, sinks={"jsonl": {"path": str(target)}}).ok
    assert str(target) not in open_files()
    run.until_results("a")
    assert not target.read_text()


@pytest.mark.parametrize("changes", [{"sinks": {"jsonl": {"path": "/none/x"}}}, {"backend": {"fail_at": 0}}])
def test_a_backend_that_never_gets_to_serve_is_closed(
    run: Run, changes: dict[str, Any], backends: list[Scripted]
) -> None:
    """A sink that can't be opened, or a picture that does not come through."""
    backend = {"name": "tests.scripted_backend", "fail_at": 99, **changes.pop("backend", {})}
    assert not run.reload(backend=backend, **changes).ok
    assert [backend.closed for backend in backends] == [0, 1]
    run.until_results("a")
    run.stop()
    assert_untouched(run)


def test_a_report_speaks_of_the_requests_that_it_has_dealt_with(run: Run, begun: list[str]) -> None:
    """One that comes while the file is read may have come too late for it: it gets a reload of its own."""
    go, read = threading.Event(), run.daemon.reloader._around.read
    assert read is not None
    slow = replace(run.daemon.reloader._around, read=lambda: (go.wait(WAIT_S), read())[1])
    run.daemon.reloader._around = slow
    run.request()
    run.until(lambda: begun, "the beginning")
    run.request()
    go.set()
    run.until(lambda: len(run.reports) == 2, "both reports")
    assert [(report.finished, report.requested) for report in run.reports] == [(1, 2), (2, 2)]
    assert len(begun) == 2


def test_a_configuration_is_read_again_where_something_else_serves_by_then(run: Run, begun: list[str]) -> None:
    """A plan holds for what it was made against alone: an engine may have taken over, or failed, meanwhile."""
    go, calls, read = threading.Event(), list[int](), run.daemon.reloader._around.read
    assert read is not None

    def slowly() -> Config:
        calls.append(1)
        go.wait(WAIT_S)
        return read()

    run.daemon.reloader._around = replace(run.daemon.reloader._around, read=slowly)
    run.request()
    run.until(lambda: begun, "the beginning")
    assert run.daemon.serving.now is not None
    run.daemon.serving.now = run.daemon.serving._proven = replace(run.daemon.serving.now)
    go.set()
    run.until(lambda: run.reports, "the report")
    assert (len(calls), len(begun), run.reports[-1].ok) == (2, 1, True)


def test_a_decoder_that_fails_in_its_first_frames_is_rolled_back(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch, backends: list[Scripted]
) -> None:
    decode = boxes_scores.BoxesScores.decode
    calls: list[int] = []

    def failing(self: Any, outputs: Any, letterboxes: Any) -> Any:
        if self._options.score == 0.95:
            calls.append(1)
            if len(calls) > 3:
                raise ValueError("scripted failure in decode")
        return decode(self, outputs, letterboxes)

    monkeypatch.setattr(boxes_scores.BoxesScores, "decode", failing)
    report = run.reload(model={"path": model, "score": 0.95})
    assert not report.ok
    assert "ValueError: scripted failure in decode" in report.text
    run.until_results("a", 30)
    run.stop()
    assert_untouched(run)
    counts = [len(m.detections) for m in run.recorder.detections("a")]
    assert counts.count(0) == 3
    assert counts[-20:] == [1] * 20
    assert [backend.closed for backend in backends] == [1]


@pytest.mark.slow
def test_after_its_trial_a_backends_error_is_fatal(run: Run) -> None:
    assert run.reload(backend={"name": "tests.scripted_backend", "fail_at": succession.TRIAL_FRAMES + 2000}).ok
    with pytest.raises(EdgeinferError, match="scripted failure") as caught:
        run.until(lambda: False, "the error")
    assert caught.value.exit_code == 70


def test_a_lost_gpu_is_never_rolled_back(run: Run) -> None:
    with pytest.raises(StickyError):
        run.reload(backend={"name": "tests.scripted_backend", "fail_at": 3, "sticky": True})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sources": {"a": {**SMALL, "wdth": 5}}}, "sources.a.wdth: unknown key; did you mean width?"),
        ({"sources": {"a": "no.such.module:"}}, "no module called 'no.such.module'"),
        ({"sources": {}}, "no sources"),
        ({"model": {"path": "none.onnx"}}, "none.onnx: no such file"),
        ({"model": {"path": "nanodet-g", "score": 2}}, "model.score: 2 is not allowed"),
        ({"backend": "tpu"}, "no backend called 'tpu'"),
        ({"publish": {"bind": "ipc:///tmp/x"}}, "publish: can't be changed"),
        ({"sinks": {"jsonl": {"path": "/none/x"}}}, "/none/x: No such file"),
        ({"sources": {"a": SMALL, "b": {"uri": "rtsp-x://user:geheim@host/"}}}, "***@host"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_changes_nothing_and_says_why(
    run: Run, changes: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture, begun: list[str]
) -> None:
    good = run.file
    report = run.reload(**{"sources": {"a": SMALL, "b": SMALL}, **changes})
    assert not report.ok
    assert says in report.text
    assert "geheim" not in report.text + caplog.text
    run.until(lambda: "reload-failed" in run.recorder.codes(), "the status")
    assert run.recorder.info().sources == ["a"]
    run.until_results("a")
    run.file = good
    assert run.reload().changes == ()
    run.stop()
    assert_untouched(run)
    assert len(begun) == len(run.reports) == 2


def test_without_a_file_there_is_nothing_to_reload(model: str) -> None:
    run = Run({"model": {"path": model}, "sources": {"a": SMALL}})
    run.daemon.reloader._around = replace(run.daemon.reloader._around, read=None)
    report = run.reload()
    assert not report.ok
    assert "there is no file to reload" in report.text
    run.until_results("a")
    run.stop()


@pytest.mark.slow
def test_frames_and_max_fps_change_without_opening_the_source_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.reload(sources={"a": {**SMALL, "max_fps": 5}}).changes == ("sources.a: max_fps changed",)
    run.until(lambda: run.recorder.detections("a")[-1].dropped, "a frame that was left out")
    run.reload(sources={"a": SMALL}, frames=len(run.recorder.detections("a")) + 50_000)
    seqs = len(run.recorder.detections("a"))
    run.reload(frames=seqs + 500)
    with Signals():
        deadline = time.monotonic() + WAIT_S
        while run.daemon.turn():
            assert time.monotonic() < deadline
            time.sleep(0.005)
    run.stop()
    found = run.recorder.detections("a")
    assert [m.seq for m in found] == list(range(len(found)))
    assert len(found) == seqs + 500


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_sinks_come_and_go_and_change(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert run.reload(sinks={"jsonl": {"path": str(one)}}).changes == ("sinks.jsonl: added",)
    run.until(lambda: len(lines_of(one)) > 10, "lines")
    kinds = ["detections", "status", "info"]
    changed = run.reload(sinks={"jsonl": {"path": str(two), "kinds": kinds}})
    assert changed.changes == ("sinks.jsonl: path, kinds changed",)
    run.until(lambda: len(lines_of(two)) > 10, "lines")
    assert lines_of(two)[0]["kind"] == "info" or lines_of(two)[1]["kind"] == "info"
    assert run.reload(sinks={}).changes == ("sinks.jsonl: removed",)
    run.until_results("a", 100)
    run.stop()
    first, second = lines_of(one), [line for line in lines_of(two) if line["kind"] == "detections"]
    assert [line["seq"] for line in first + second] == list(range(first[0]["seq"], second[-1]["seq"] + 1))
    assert second[-1]["seq"] < run.recorder.detections("a")[-1].seq
    assert not run.daemon.failures()
    assert_untouched(run)


@pytest.mark.slow
def test_pictures_come_whole_only_while_somebody_looks_at_them(run: Run, tmp_path: Path) -> None:
    fitting_source.fits.clear()
    setattr(run.recorder, "pictures", False)  # noqa: B010 (others of its kind don't say)
    fitting = {"uri": "tests.fitting_source:"}
    run.reload(sources={"a": SMALL, "c": fitting, "whole": {**fitting, "scaler": False}})
    run.until_results("c")
    run.until_results("whole")
    assert sorted(fitting_source.fits, key=bool) == [None, (64, 64)]
    assert run.reload(sinks={"video": {"path": str(tmp_path / "x.mp4")}}).ok
    run.until(lambda: len(fitting_source.fits) == 3, "the source to be opened again")
    run.until_results("c")
    assert run.reload(sinks={}).ok
    run.until(lambda: len(fitting_source.fits) == 4, "the source to be opened again")
    run.until_results("c")
    assert fitting_source.fits[2:] == [None, (64, 64)], "the other has nothing to gain from it"
    assert_untouched(run)


class SlowSink(Recorder):
    """Takes its time until `go`."""

    pictures = False

    def __init__(self, log: list[str], name: str) -> None:
        super().__init__()
        self.go = threading.Event()
        self._log, self._name = log, name

    def write(self, message: Message, result: Result | None) -> None:
        self.go.wait(WAIT_S)
        self._log.append(f"{self._name} writes")

    def close(self) -> None:
        self._log.append(f"{self._name} closes")


def test_a_sinks_successor_waits_until_everything_has_been_written() -> None:
    log: list[str] = []
    first, second = SlowSink(log, "first"), SlowSink(log, "second")
    second.go.set()
    old = Outbox("old", first)
    for number in range(DEPTH + 1):
        old.write(example("status", number), None)
    old.retire()
    new = Outbox("new", second, after=old)
    new.write(example("status"), None)
    new.retire()
    assert not log
    first.go.set()
    new.join(WAIT_S)
    written = DEPTH + 1 - old.lost
    assert old.lost <= 1, "one may be in the sink's hands already"
    assert log == ["first writes"] * written + ["first closes", "second writes", "second closes"]


def test_a_source_that_goes_is_heard_out() -> None:
    """What was queued when it was removed is published before its last status."""
    recorder, ledger = Recorder(), Ledger(time.monotonic_ns)
    info = ModelInfo(id="m", name="m", sha256="0", task="detection", input_size=(1, 1), labels=[])
    nobody = lambda: DaemonSnapshot(model="m")  # noqa: E731
    publisher = Publisher(Identity.new(info, ["a"]), {"a": ledger}, {"r": recorder}, Statistics(), Bulletin(), nobody)
    picture = stamped(np.zeros((1, 1, 3), np.uint8), "arrival")
    for number in range(3):
        frame = Frame("a", ledger.capture(), picture, live=True)
        ledger.infer()
        publisher.put(Result(frame, number, Detections.empty(), Timing(0, 0, 0, 0), 0, "b", info))
    ledger.set_state("ended", sourceset.REMOVED)
    publisher.set_sources({}, [ledger])
    publisher.start()
    publisher.close()
    publisher.join(WAIT_S)
    assert [type(m) for m in recorder.messages if m.source == "a"] == [DetectionsMessage] * 3 + [StatusMessage]
    assert recorder.info().sources == []


def test_a_sink_that_had_failed_is_opened_again(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "link.jsonl"
    target.symlink_to("/dev/full")
    run.reload(sinks={"jsonl": {"path": str(target)}})
    run.until(lambda: run.daemon.publisher.sinks.troubles, "no space left")
    target.unlink()
    assert run.reload().changes == ("sinks.jsonl: opened again",)
    run.until(lambda: len(lines_of(target)) > 10, "lines")
    run.stop()
    assert not run.daemon.failures()


@pytest.mark.slow
def test_an_engine_that_fails_in_its_first_frames_leaves_the_fallback_serving(
    model: str, monkeypatch: pytest.MonkeyPatch, backends: list[Scripted]
) -> None:
    class Prepared:
        cached = False

        def __init__(self, model: Model, max_batch: int | None, options: Any) -> None:
            self._model = model

        def open(self, on_progress: OnProgress, cancel: threading.Event) -> Backend:
            return scripted_backend.open(self._model, None, scripted_backend.Options(fail_at=4))

    monkeypatch.setattr(tensorrt, "Preparation", Prepared)
    run = Run({"model": {"path": model}, "sources": {"a": SMALL}})
    run.until(lambda: "engine-failed" in run.recorder.codes(), "the failure")
    run.until_results("a", 30)
    run.stop()
    assert_untouched(run)
    names = [m.backend for m in run.recorder.detections("a")]
    assert 3 <= names.count("scripted") <= 4, "what was in flight is run again on the other"
    assert names[-1] == "onnxruntime-cpu"
    assert [backend.closed for backend in backends] == [1]
    assert run.recorder.info().backend == "onnxruntime-cpu"


class Builds:
    """A stand-in for TensorRT: every build waits for `go`, and can be cancelled."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.failures: list[EdgeinferError] = []

    def prepared(self, model: Model, max_batch: int | None, options: Any) -> Any:
        builds = self

        class Prepared:
            cached = False

            def open(self, on_progress: OnProgress, cancel: threading.Event) -> Backend:
                builds.begun.append(model.card.name)
                while not builds.go.wait(0.01):
                    on_progress(BuildProgress("Building", 0.5, 1.0))
                    if cancel.is_set():
                        builds.cancelled.append(model.card.name)
                        raise BuildError("cancelled")
                if builds.failures:
                    raise builds.failures.pop()
                backend = onnxruntime.open(model, max_batch, onnxruntime.Options(threads=1))
                backend.name = "tensorrt-fp16"
                return backend

        return Prepared()


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    builds = Builds()
    monkeypatch.setattr(tensorrt, "Preparation", builds.prepared)
    return builds


@pytest.fixture
def two(tmp_path: Path) -> str:
    return network(tmp_path, "two", ["a", "b", "cat"], [2, 2, 20, 20], size=32)


def test_the_old_model_serves_while_the_new_ones_engine_is_built(run: Run, two: str, builds: Builds) -> None:
    run.file = {**run.file, "backend": "tensorrt", "model": {"path": two}}
    run.request()
    run.until(lambda: "engine-building" in run.recorder.codes(), "the build")
    run.until_results("a", 20)
    assert not run.reports
    builds.go.set()
    run.until(lambda: run.reports, "the reload")
    assert run.reports[-1].ok
    run.until_results("a")
    run.stop()
    assert_untouched(run)
    found = run.recorder.detections("a")
    assert {(m.backend, m.model[:3]) for m in found} == {("scripted", "one"), ("tensorrt-fp16", "two")}


@pytest.mark.slow
def test_a_new_models_engine_that_wants_memory_is_tried_again_beside_the_fallback(
    run: Run, two: str, builds: Builds
) -> None:
    now = [0.0]
    run.daemon.serving.retries = Retries(lambda: now[0])
    builds.failures = [BuildKilledError("the build was killed")]
    builds.go.set()
    report = run.reload(backend="auto", model={"path": two})
    assert report.ok
    run.until_results("a")
    assert run.daemon.serving.backend_name == "onnxruntime-cpu"
    now[0] = 60.0
    run.until(lambda: run.recorder.detections("a")[-1].backend == "tensorrt-fp16", "the engine")
    assert builds.begun == ["two", "two"]
    run.stop()
    assert_untouched(run)


@pytest.mark.slow
def test_another_request_for_the_same_model_lets_the_build_go_on(
    run: Run, two: str, builds: Builds, begun: list[str]
) -> None:
    run.file = {**run.file, "backend": "tensorrt", "model": {"path": two}}
    run.request()
    run.until(lambda: builds.begun, "the build")
    run.file = {**run.file, "model": {"path": two, "score": 0.95}, "sources": {"a": SMALL, "b": SMALL}}
    for _ in range(5):
        run.request()
        run.until_results("a")
    builds.go.set()
    run.until(lambda: run.reports, "the reload")
    assert (run.reports[-1].ok, run.reports[-1].finished) == (True, 6)
    run.until_results("b")
    assert not run.recorder.detections("b")[-1].detections, "the newest thresholds count"
    assert (builds.begun, builds.cancelled) == (["two"], [])
    assert len(begun) == len(run.reports) == 1
    run.stop()


@pytest.mark.parametrize("newer", ["other", "same-as-running", "bad"])
def test_a_newer_request_gives_up_the_build_that_it_does_not_want(
    run: Run, two: str, builds: Builds, newer: str, backends: list[Scripted], begun: list[str]
) -> None:
    before = run.file
    run.file = {**before, "backend": "tensorrt", "model": {"path": two}}
    run.request()
    run.until(lambda: builds.begun, "the build")
    run.file = {
        "other": {**before, "model": {"path": two}},
        "same-as-running": before,
        "bad": {**before, "modle": 1},
    }[newer]
    report = run.reload()
    assert report.ok == (newer != "bad")
    run.until(lambda: builds.cancelled == ["two"], "the end of the build")
    run.until_results("a")
    assert len(backends) == (2 if newer == "other" else 1)
    run.stop()
    assert_untouched(run)
    assert len(begun) == len(run.reports) == 1


def test_the_end_of_the_run_gives_up_a_reload(run: Run, two: str, builds: Builds) -> None:
    run.file = {**run.file, "backend": "tensorrt", "model": {"path": two}, "sources": {"a": SMALL, "b": SMALL}}
    run.request()
    run.until(lambda: builds.begun, "the build")
    run.stop()
    deadline = time.monotonic() + WAIT_S
    while not builds.cancelled:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert_untouched(run)


def test_a_build_that_fails_keeps_the_old_configuration(run: Run, two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*_: Any) -> Any:
        raise UnavailableError("no GPU")

    monkeypatch.setattr(tensorrt, "Preparation", impossible)
    report = run.reload(backend="tensorrt", model={"path": two}, sources={"b": SMALL})
    assert (report.ok, report.text) == (False, "no GPU")
    run.until_results("a")
    run.stop()
    assert_untouched(run)


def test_a_request_while_the_model_is_loaded_waits_for_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    load = scripted_backend.open
    monkeypatch.setattr(scripted_backend, "open", lambda *a: (go.wait(WAIT_S), load(*a))[1])
    run = Run({"model": {"path": model}, "backend": "tests.scripted_backend", "sources": {"a": SMALL}})
    run.file = {**run.file, "sources": {"b": SMALL}}
    for _ in range(3):
        run.request()
        assert run.daemon.turn()
    go.set()
    run.until_results("b")
    assert [(report.ok, report.finished) for report in run.reports] == [(True, 3)]
    run.stop()


@pytest.mark.slow
def test_a_source_that_does_not_let_go_holds_nobody_up(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its removal is told after a while, and once it lets go it can come back."""
    monkeypatch.setattr(sourceset, "LEAVE_S", 0.2)
    (tmp_path / "stuck_source.py").write_text(
        "import threading\nfrom edgeinfer.sources import demo\nfrom edgeinfer.sources.demo import Options\n"
        "let_go = threading.Event()\n"
        "class Stuck(demo.Demo):\n"
        "    def read(self):\n"
        "        if self._index == 3:\n"
        "            let_go.wait(60)\n"
        "        return super().read()\n"
        "def open(uri, options):\n    return Stuck(options)\n"
    )
    (tmp_path / "stuckpackage").mkdir()
    (tmp_path / "stuckpackage" / "__init__.py").touch()
    (tmp_path / "stuck_source.py").rename(tmp_path / "stuckpackage" / "source.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    stuck = {**SMALL, "uri": "stuckpackage.source:"}
    run.reload(sources={"a": SMALL, "s": stuck})
    run.until(lambda: len(run.recorder.detections("s")) == 3, "three results")
    assert run.reload(sources={"a": SMALL}).ok
    run.until(lambda: run.recorder.info().sources == ["a"], "info without it")
    assert run.recorder.statuses("s")[-1].state == "ended"
    run.reload(sources={"a": SMALL, "s": stuck})
    run.until(lambda: run.recorder.statuses("s")[-1].state == "stalled", "the status")
    sys.modules["stuckpackage.source"].let_go.set()
    run.until_results("s", 10)
    run.stop()
    assert_untouched(run)
    assert [m.seq for m in run.recorder.detections("s")] == list(range(len(run.recorder.detections("s"))))


@pytest.mark.slow
def test_without_frames_the_rest_of_a_reload_does_not_wait(
    run: Run, monkeypatch: pytest.MonkeyPatch, model: str, backends: list[Scripted]
) -> None:
    """What is on trial stays so, and is rolled back as late as its first frames come."""
    monkeypatch.setattr(reloading, "TRIAL_PATIENCE_S", 0.3)
    slow = {**SMALL, "realtime": True, "fps": 0.01}
    run.reload(sources={"slow": slow})
    run.until(lambda: run.recorder.info().sources == ["slow"], "info")
    faulty = {"name": "tests.scripted_backend", "fail_at": 3}
    assert run.reload(backend=faulty).ok
    run.reload(sources={"slow": slow, "a": SMALL})
    run.until(lambda: "reload-failed" in run.recorder.codes(), "the roll-back")
    run.until_results("a", 30)
    assert [backend.closed for backend in backends] == [0, 1]
    assert run.daemon.reloader.config.backend.options == scripted_backend.Options()
    run.stop()
    found = run.recorder.detections("a")
    assert [m.seq for m in found] == list(range(len(found)))


@pytest.mark.slow
def test_after_a_late_roll_back_pictures_come_as_the_model_wants_them_that_serves(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backends: list[Scripted]
) -> None:
    monkeypatch.setattr(reloading, "TRIAL_PATIENCE_S", 0.3)
    fitting_source.fits.clear()
    setattr(run.recorder, "pictures", False)  # noqa: B010 (others of its kind don't say)
    rare = {"uri": "tests.fitting_source:", "max_fps": 0.01}
    run.reload(sources={"c": rare})
    run.until(lambda: fitting_source.fits == [(64, 64)] and run.recorder.info().sources == ["c"], "one source")
    other = network(tmp_path, "two", ["thing"], [2, 2, 20, 20], size=32)
    assert run.reload(model={"path": other}, backend={"name": "tests.scripted_backend", "fail_at": 3}).ok
    run.until(lambda: fitting_source.fits == [(64, 64), (32, 32)], "pictures for the model on trial")
    run.reload(sources={"c": rare, "a": SMALL})
    run.until(lambda: "reload-failed" in run.recorder.codes(), "the roll-back")
    run.until(lambda: len(fitting_source.fits) == 3, "the source to be opened again")
    assert fitting_source.fits[2] == (64, 64)
    run.until_results("a")
    assert run.daemon.model.card.name == "one"


# Networks of strangers.


@pytest.mark.slow
def test_a_network_without_an_end_fails_its_reload_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    stranger = endless(tmp_path)
    report = run.reload(backend={"name": "onnxruntime", "trial_s": 1}, model={"path": str(stranger)})
    assert not report.ok
    assert "gave no result within 1 s when it was tried" in report.text
    run.until(lambda: not run.daemon._workshop.busy, "the end of its thread")
    run.until_results("a")
    run.stop()
    assert_untouched(run)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["yes", "bright"])
def test_a_newer_request_or_the_end_gives_up_a_network_without_an_end(run: Run, tmp_path: Path, on: str) -> None:
    """One that hangs in the child; and one that only the picture of the rehearsal starts, which hangs in us."""
    before, stranger = run.file, endless(tmp_path, on)
    run.file = {**before, "backend": {"name": "onnxruntime", "threads": 1}, "model": {"path": str(stranger)}}
    run.request()
    run.until(lambda: run.daemon.reloader._building, "the trial")
    time.sleep(2 if on == "bright" else 0)  # how far it is by then shows nowhere
    run.file = before
    assert run.reload().ok
    run.until(lambda: not run.daemon._workshop.busy, "the end of its thread")
    run.file = {**before, "backend": {"name": "onnxruntime", "threads": 1}, "model": {"path": str(stranger)}}
    run.request()
    run.until(lambda: run.daemon.reloader._building, "the trial")
    run.stop()
    deadline = time.monotonic() + WAIT_S
    while run.daemon._workshop.busy:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert_untouched(run)
