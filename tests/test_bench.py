"""What `edgeinfer bench` says: its clocks against invented ones, its arithmetic against numbers done by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest

from edgeinfer.bench import memory
from edgeinfer.bench import report as reports
from edgeinfer.bench.clip import write_clip
from edgeinfer.bench.figures import Feed, PipelineRun, RawRun, Report, Spread, by_shape, table_row
from edgeinfer.bench.figures import Testbed as Machine
from edgeinfer.bench.plot import draw, shares
from edgeinfer.bench.report import BenchPlan, benchmark, print_report
from edgeinfer.bench.stopwatch import WARM_UP, Stopwatch, rate
from edgeinfer.commands.bench import parse_numbers
from edgeinfer.config.settings import Config
from edgeinfer.errors import InputError
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from tests.test_messages import example

SMALL = [("backend.name", "onnxruntime")]


def run(fps: float = 1.0, **changes: Any) -> PipelineRun:
    """A run whose other numbers follow from its `fps`, so that a column that is mixed up shows."""
    stages = {
        stage: {q: fps * 100 + index * 10 + part for part, q in enumerate(("p50", "p95", "p99"))}
        for index, stage in enumerate(("queue", "preprocess", "infer", "decode", "total"))
    }
    numbers: dict[str, Any] = {
        "fps": fps, "cpu_ms": fps + 1000, "published": int(fps), "dropped": int(fps) + 2, "gpu_mb": fps + 4000,
        "stages_ms": stages,
    }  # fmt: skip
    named: dict[str, Any] = {"model": "m@1", "backend": "cpu", "versions": {"edgeinfer": "1"}, "detail": "two threads"}
    return PipelineRun(**{**named, **numbers, **changes})


# Arithmetic


def test_of_the_rounds_median_least_and_most_are_shown() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(median=3.0, min=1.0, max=10.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)
    assert Spread.of([1 / 3]) == Spread(0.3333, 0.3333, 0.3333)


def test_the_best_of_a_raw_run_is_its_fastest_shape() -> None:
    assert RawRun({"1x1": 20.0, "2x4": 90.0, "4x8": 70.0}).best == 90.0


def test_shapes_are_compared_over_the_rounds() -> None:
    raw = [RawRun({"1x1": 10.0, "1x8": 40.0}), RawRun({"1x1": 30.0, "1x8": 20.0}), RawRun({"1x1": 20.0, "1x8": 30.0})]
    assert by_shape(raw) == {"1x1": Spread(20, 10, 30), "1x8": Spread(30, 20, 40)}


def test_a_ratio_is_that_to_the_raw_network_of_the_same_round() -> None:
    """On a machine that slows down the two fall together; held against the best of all rounds the ratio would too."""
    raw = [RawRun({"1x1": 10.0, "1x8": 100.0}), RawRun({"1x1": 50.0}), RawRun({"1x1": 25.0})]
    found = table_row(Feed("clip.mp4", 2, live=False), [run(90), run(40), run(15)], raw)
    assert found.ratio == Spread(0.8, 0.6, 0.9)
    assert found.fps == Spread(40, 15, 90)
    assert found.cpu_ms == Spread(1040, 1015, 1090)
    assert found.gpu_mb == Spread(4040, 4015, 4090)
    assert (found.source, found.sources) == ("clip.mp4", 2)
    assert (found.published, found.dropped) == (90 + 40 + 15, 92 + 42 + 17), "of all rounds together"
    assert found.stages_ms["decode"]["p95"] == Spread(4031, 1531, 9031)
    assert list(found.stages_ms) == ["queue", "preprocess", "infer", "decode", "total"]


def test_a_camera_has_no_ratio_and_a_machine_without_a_gpu_no_memory() -> None:
    found = table_row(Feed("memory", 1, live=True), [run(30, gpu_mb=None)], [RawRun({"1x1": 60.0})])
    assert (found.ratio, found.gpu_mb) == (None, None)


def test_rounds_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table_row(Feed("x", 1, live=False), [run(), run()], [RawRun({"1x1": 1.0})])


# Clocks


class Clock:
    """Seconds that pass when something is done."""

    def __init__(self) -> None:
        self.s = 5.0

    def __call__(self) -> float:
        return self.s


def test_the_rate_of_a_network_is_that_after_its_warm_up() -> None:
    clock, seen = Clock(), list[str]()

    def infer(name: str) -> None:
        seen.append(name)
        clock.s += 60 if len(seen) <= WARM_UP else 0.25

    assert rate(infer, ["a", "b", "c"], 20, clock) == pytest.approx(4)
    assert len(seen) == WARM_UP + 20
    assert seen[WARM_UP : WARM_UP + 4] == ["a", "b", "c", "a"]


def test_frames_and_cpu_time_are_counted_from_the_end_of_the_warm_up() -> None:
    wall, cpu = Clock(), Clock()
    stopwatch = Stopwatch(wall, cpu)
    for number in range(WARM_UP + 8):
        wall.s += 1000 if number < WARM_UP else 0.5
        cpu.s += 2000 if number < WARM_UP else 0.125
        stopwatch.write(example("status"), None)
        stopwatch.write(example("detections"), None)
        stopwatch.service()
    wall.s += 77  # what comes after the last frame is not the frames' time
    stopwatch.write(example("status"), None)
    stopwatch.close()
    assert stopwatch.count == WARM_UP + 8
    assert stopwatch.per_frame() == pytest.approx((0.5, 0.125))


@pytest.mark.parametrize("frames", [0, WARM_UP])
def test_too_few_frames_are_no_measurement(frames: int) -> None:
    stopwatch = Stopwatch()
    for _ in range(frames):
        stopwatch.write(example("detections"), None)
    with pytest.raises(InputError, match=f"{frames} frames came out"):
        stopwatch.per_frame()
    stopwatch.write(example("detections"), None)
    if frames:
        assert min(stopwatch.per_frame()) >= 0


def test_sleeping_costs_time_and_no_cpu_time() -> None:
    """By the clocks that are used where none is given."""
    stopwatch = Stopwatch()
    for number in range(WARM_UP + 1):
        if number == WARM_UP:
            time.sleep(0.2)
        stopwatch.write(example("detections"), None)
    seconds, cpu_seconds = stopwatch.per_frame()
    assert seconds >= 0.19
    assert cpu_seconds < seconds / 2


# What is fed


def test_frames_from_memory_are_given_once_each_and_differ() -> None:
    source = memory.open("edgeinfer.bench.memory:", memory.Options(frames=memory.DISTINCT + 3))
    captures = [source.read() for _ in range(memory.DISTINCT + 3)]
    assert source.read() is None
    assert (source.live, source.fps) == (False, 0.0)
    shown = [capture.image for capture in captures if capture is not None]
    assert {image.shape for image in shown} == {(720, 1280, 3)}
    assert len({id(image) for image in shown}) == memory.DISTINCT
    assert len({image[::40, ::40].tobytes() for image in memory.images()}) == memory.DISTINCT
    assert (memory.images()[-1] == Demo(DemoOptions(realtime=False)).render(23 * 13)).all(), "through all its scenes"
    live = memory.open("edgeinfer.bench.memory:", memory.Options(frames=1, fps=500.0))
    assert (live.live, live.fps) == (True, 500.0)


def test_the_clip_that_is_made_has_its_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 5)
    reader = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert [reader.read()[0] for _ in range(6)] == [True] * 5 + [False]
    assert reader.get(cv2.CAP_PROP_FPS) == 30


class Recorded:
    """Stands in for the two measurements; the machine gets slower with every round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.configs: list[Config] = []
        self._round = 0
        monkeypatch.setattr(reports, "raw_run", self.raw)
        monkeypatch.setattr(reports, "pipeline_run", self.pipeline)

    def raw(self, config: Config, frames: int) -> RawRun:
        self._round += 1
        self.steps.append(f"raw {frames}")
        return RawRun({"1x1": 10.0 / self._round, "2x1": 100.0 / self._round})

    def pipeline(self, config: Config) -> PipelineRun:
        self.configs.append(config)
        self.steps.append(f"{len(config.sources)}")
        return run(80.0 / self._round)


def test_every_way_is_measured_in_every_round_beside_the_raw_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded, told = Recorded(monkeypatch), list[str]()
    (tmp_path / "my.mp4").touch()
    plan = BenchPlan(str(tmp_path / "my.mp4"), (1, 4), rounds=2, frames=200)
    found = benchmark(SMALL, plan, told.append)
    ways = ["memory", "memory ×4", "file", "live", "live ×4"]
    assert recorded.steps == ["raw 200", "1", "4", "1", "1", "4"] * 2
    assert told[:2] == ["round 1 of 2: raw network", "round 1 of 2: pipeline, memory"]
    assert list(found.pipelines) == ways
    assert found.raw_fps == Spread(75, 50, 100)
    assert found.raw == {"1x1": Spread(7.5, 5, 10), "2x1": Spread(75, 50, 100)}
    ratios = [found.pipelines[way].ratio for way in ways]
    assert ratios == [Spread(0.8, 0.8, 0.8)] * 3 + [None] * 2
    assert [row.sources for row in found.pipelines.values()] == [1, 4, 1, 1, 4]
    assert found.pipelines["file"].source == "my.mp4"
    assert (found.rounds, found.frames, found.detail, found.machine.model) == (2, 200, "two threads", "m@1")
    sources = [list(config.sources.values()) for config in recorded.configs[:5]]
    assert [len(each) for each in sources] == [1, 4, 1, 1, 4]
    shown = [(options.frames, options.fps) for each in (0, 1, 3, 4) for options in [sources[each][0].options]]  # type: ignore[attr-defined]
    assert shown == [(200, None), (50, None), (150, 30.0), (150, 30.0)]
    assert {config.frames for config in recorded.configs} == {200}
    assert {config.backend.name for config in recorded.configs} == {"onnxruntime"}


def test_each_of_many_sources_gives_enough_frames_to_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded = Recorded(monkeypatch)
    (tmp_path / "my.mp4").touch()
    benchmark(SMALL, BenchPlan(str(tmp_path / "my.mp4"), (50,), rounds=1, frames=100), lambda _: None)
    assert next(iter(recorded.configs[0].sources.values())).options.frames == 20  # type: ignore[attr-defined]


def test_a_clip_is_made_where_none_is_named_and_one_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded, made = Recorded(monkeypatch), list[int]()

    def write(path: Path, frames: int) -> None:
        made.append(frames)
        path.touch()

    monkeypatch.setattr(reports, "write_clip", write)
    for frames in (100, 5000):
        benchmark(SMALL, BenchPlan(None, (1,), rounds=1, frames=frames), lambda _: None)
    assert made == [100, 600], "a long run does not need a long clip"
    file = recorded.configs[1].sources["s0"]
    assert str(file.uri).endswith("demo.mp4")
    with pytest.raises(InputError, match="no such file"):
        benchmark(SMALL, BenchPlan(str(tmp_path / "none.mp4"), (1,), rounds=1, frames=20), lambda _: None)


# What is shown


@pytest.fixture
def report() -> Report:
    raw = [RawRun({"1x1": 10.0, "1x4": 30.0, "2x1": 20.0, "2x4": 40.0})]
    machine = Machine("a processor", 2, "3.12", {}, "cpu", "m@1")
    rows = {
        "file": table_row(Feed("clip.mp4", 1, live=False), [run(36)], raw),
        "live ×4": table_row(Feed("memory", 4, live=True), [run(20, gpu_mb=None)], raw),
    }
    return Report(machine, "two threads", 1, 150, Spread.of([raw[0].best]), by_shape(raw), rows)


def test_the_tables(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][:-4] == [
        "m@1 on cpu (two threads), 2 cores (a processor), 1 rounds of 150 frames; median (min … max)",
        "",
        "raw fps, batch 1 streams 2 streams",
        "1 10 20",
        "4 30 40",
        "",
        "fps share of raw CPU ms per frame dropped GPU MB",
        "raw network 40.0 (40.0 … 40.0)",
        "pipeline, file 36.0 (36.0 … 36.0) 0.900 (0.900 … 0.900) 1036.00 (1036.00 … 1036.00) 38 4036",
        "pipeline, live ×4 20.0 (20.0 … 20.0) 1020.00 (1020.00 … 1020.00) 22",
        "",
        "ms, p50 / p95 / p99 file live ×4",
        "queue 3600.0 / 3601.0 / 3602.0 2000.0 / 2001.0 / 2002.0",
    ]


def test_the_report_is_plain_data(report: Report) -> None:
    data = json.loads(json.dumps(report.to_json()))
    assert data["pipelines"]["file"]["ratio"] == {"median": 0.9, "min": 0.9, "max": 0.9}
    assert data["pipelines"]["live ×4"]["ratio"] is None
    assert data["raw"]["2x4"]["median"] == 40


def test_the_plot_shows_what_the_stages_leave_of_the_whole_as_other(report: Report, tmp_path: Path) -> None:
    def stages(**p50: float) -> dict[str, dict[str, float]]:
        return {stage: {"p50": value, "p95": 0.0, "p99": 0.0} for stage, value in p50.items()}

    for total, other in ((10.0, 4.0), (5.0, 0.0)):
        found = run(stages_ms=stages(queue=1, preprocess=2, infer=3, total=total))
        row = table_row(Feed("x", 1, live=True), [found], [])
        assert shares(row) == {"queue": 1, "preprocess": 2, "infer": 3, "other": other}
    draw(report, tmp_path / "plot.png")
    drawn = cv2.imread(str(tmp_path / "plot.png"))
    assert drawn is not None
    for colour in ((180, 180, 180), (113, 204, 46)):
        assert (drawn[90:124] == np.array(colour)).all(axis=2).any(), "a stage has no part of the first bar"
    with pytest.raises(InputError, match="can't be written"):
        draw(report, tmp_path / "none" / "plot.png")


@pytest.mark.parametrize(("text", "numbers"), [("1", (1,)), ("1,4,16", (1, 4, 16)), ("256", (256,))])
def test_numbers_of_sources(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "257", "1,x", "1,,2", "-1"])
def test_what_is_no_number_of_sources(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_numbers(text)
