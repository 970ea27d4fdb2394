"""What `edgeinfer bench` says: its clocks against invented ones, its arithmetic against numbers done by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import av
import click
import cv2
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edgeinfer.bench import clip as clips
from edgeinfer.bench import memory
from edgeinfer.bench import report as reports
from edgeinfer.bench.apart import Order, run_apart
from edgeinfer.bench.clip import write_clip
from edgeinfer.bench.figures import Feed, PipelineRun, RawRun, Report, Spread, by_shape, table_row
from edgeinfer.bench.figures import Testbed as Machine
from edgeinfer.bench.footprint import BUSY_LOOK_S, Family, Footprint, Growth
from edgeinfer.bench.growth import COLOURS as GROWTH_COLOURS
from edgeinfer.bench.growth import draw_growth, lines
from edgeinfer.bench.plot import COLOURS, draw, shares
from edgeinfer.bench.report import benchmark
from edgeinfer.bench.sampler import Sampler
from edgeinfer.bench.stopwatch import LOOK_S, WARM_UP, Stopwatch, rate
from edgeinfer.bench.tables import print_report
from edgeinfer.bench.ways import KINDS, BenchPlan, Way
from edgeinfer.commands.bench import command as bench_command
from edgeinfer.commands.bench import parse_kinds, parse_numbers
from edgeinfer.config.settings import Config
from edgeinfer.errors import FatalError, InputError, TemporaryError, UsageError
from edgeinfer.flow.statistics import STAGES
from edgeinfer.pictures.charts import check_place
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from tests.test_messages import example

SMALL = [("backend.name", "onnxruntime")]


def run(fps: float = 1.0, **changes: Any) -> PipelineRun:
    """A run whose other numbers follow from its `fps`, so that a column that is mixed up shows."""
    stages = {
        stage: {q: fps * 100 + index * 10 + part for part, q in enumerate(("p50", "p95", "p99"))}
        for index, stage in enumerate(STAGES)
    }
    numbers: dict[str, Any] = {
        "fps": fps, "cpu_ms": fps + 1000, "published": int(fps), "dropped": int(fps) + 2, "gpu_mb": fps + 4000,
        "stages_ms": stages, "source_mb": fps + 100, "decoder": "software (y)",
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
    assert found.stages_ms["decode"]["p95"] == Spread(4051, 1551, 9051)
    assert list(found.stages_ms) == list(STAGES)
    assert (found.source_mb, found.source_threads, found.decoder) == (Spread(140, 115, 190), None, "software (y)")


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


@pytest.mark.slow
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
    told = list[str]()
    write_clip(tmp_path / "clip.mp4", 5, told.append)
    reader = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert [reader.read()[0] for _ in range(6)] == [True] * 5 + [False]
    assert reader.get(cv2.CAP_PROP_FPS) == 30
    assert told == []
    with av.open(str(tmp_path / "clip.mp4")) as container:
        kinds = [int(frame.pict_type) for frame in container.decode(video=0)]
        assert (container.streams.video[0].codec_context.name, kinds) == ("h264", [1, 2, 2, 2, 2]), "I P P P P"


def test_where_no_h264_can_be_encoded_the_clip_is_another_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no such encoder")

    told = list[str]()
    monkeypatch.setattr(clips, "_write_h264", refuse)
    write_clip(tmp_path / "clip.mp4", 3, told.append)
    assert cv2.VideoCapture(str(tmp_path / "clip.mp4")).read()[0]
    assert [text.partition(",")[0] for text in told] == ["the clip is MPEG-4"]
    with pytest.raises(TemporaryError, match="can't write a video here"):
        write_clip(tmp_path / "none" / "clip.mp4", 3, told.append)


class Recorded:
    """Stands in for the two measurements; the machine gets slower with every round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.configs: list[Config] = []
        self._round = 0
        monkeypatch.setattr(reports, "raw_run", self.raw)
        monkeypatch.setattr(reports, "run_apart", self.pipeline)

    def raw(self, config: Config, frames: int) -> RawRun:
        self._round += 1
        self.steps.append(f"raw {frames}")
        return RawRun({"1x1": 10.0 / self._round, "2x1": 100.0 / self._round})

    def pipeline(self, order: Order) -> PipelineRun:
        config = order.config()
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
    ways = ["memory", "memory ×4", "file", "file ×4", "file ×8", "video", "video ×4", "live", "live ×4"]
    numbers = [1, 4, 1, 4, 8, 1, 4, 1, 4]
    assert recorded.steps == ["raw 200", *map(str, numbers)] * 2
    assert told[:2] == ["round 1 of 2: raw network", "round 1 of 2: pipeline, memory"]
    assert list(found.pipelines) == ways
    assert found.raw_fps == Spread(75, 50, 100)
    assert found.raw == {"1x1": Spread(7.5, 5, 10), "2x1": Spread(75, 50, 100)}
    ratios = [found.pipelines[way].ratio for way in ways]
    assert ratios == [Spread(0.8, 0.8, 0.8)] * 5 + [None] * 4
    assert [row.sources for row in found.pipelines.values()] == numbers
    assert found.pipelines["file"].source == "my.mp4"
    assert (found.rounds, found.frames, found.detail, found.machine.model) == (2, 200, "two threads", "m@1")
    sources = [list(config.sources.values()) for config in recorded.configs[:9]]
    assert [len(each) for each in sources] == numbers
    shown = [(options.frames, options.fps) for each in (0, 1, 7, 8) for options in [sources[each][0].options]]  # type: ignore[attr-defined]
    assert shown == [(200, None), (50, None), (150, 30.0), (150, 30.0)]
    assert [each[0].options.realtime for each in sources[2:7]] == [False] * 3 + [True] * 2  # type: ignore[attr-defined]
    assert [config.frames for config in recorded.configs[:9]] == [200, 50, 200, 50, 25, 150, 150, 150, 150]
    assert {config.backend.name for config in recorded.configs} == {"onnxruntime"}


@pytest.mark.slow
def test_each_of_many_sources_gives_enough_frames_to_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded = Recorded(monkeypatch)
    (tmp_path / "my.mp4").touch()
    benchmark(SMALL, BenchPlan(str(tmp_path / "my.mp4"), (50,), rounds=1, frames=100), lambda _: None)
    assert next(iter(recorded.configs[0].sources.values())).options.frames == 20  # type: ignore[attr-defined]


def test_a_clip_is_made_where_none_is_named_and_one_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded, made = Recorded(monkeypatch), list[int]()

    def write(path: Path, frames: int, tell: object) -> None:
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


def test_where_no_way_is_left_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded = Recorded(monkeypatch)
    text = tmp_path / "t.txt"
    text.write_text("no video")
    for plan in (
        BenchPlan(None, (1,), rounds=1, frames=20, only=("rtsp",)),
        BenchPlan(str(text), (1,), rounds=1, frames=20, rtsp=(1,), only=("rtsp",)),
    ):
        with pytest.raises(UsageError, match="no way of feeding the pipeline is left to measure"):
            benchmark(SMALL, plan, lambda _: None)
    assert recorded.steps == []


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
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][:-7] == [
        "m@1 on cpu (two threads), 2 cores (a processor), 1 rounds of 150 frames; median (min … max)",
        "",
        "raw fps, batch 1 streams 2 streams",
        "1 10 20",
        "4 30 40",
        "",
        "fps share of raw CPU ms per frame dropped MB a source threads a source GPU MB",
        "raw network 40.0 (40.0 … 40.0)",
        "pipeline, file 36.0 (36.0 … 36.0) 0.900 (0.900 … 0.900) 1036.00 (1036.00 … 1036.00) 38 136.0 4036",
        "pipeline, live ×4 20.0 (20.0 … 20.0) 1020.00 (1020.00 … 1020.00) 22 120.0",
        "file: decoded by software (y)",
        "live ×4: decoded by software (y)",
        "",
        "ms, p50 / p95 / p99 file live ×4",
        "receive 3600.0 / 3601.0 / 3602.0 2000.0 / 2001.0 / 2002.0",
    ]


def test_the_report_is_plain_data(report: Report) -> None:
    data = json.loads(json.dumps(report.to_json()))
    assert data["pipelines"]["file"]["ratio"] == {"median": 0.9, "min": 0.9, "max": 0.9}
    assert data["pipelines"]["live ×4"]["ratio"] is None
    assert data["raw"]["2x4"]["median"] == 40


def test_the_plot_shows_the_stages_each_once(report: Report, tmp_path: Path) -> None:
    def stages(**p50: float) -> dict[str, dict[str, float]]:
        return {stage: {"p50": value, "p95": 0.0, "p99": 0.0} for stage, value in p50.items()}

    found = run(stages_ms=stages(queue=5, preprocess=2, infer=3, total=10, receive=4))
    row = table_row(Feed("x", 1, live=True), [found], [])
    assert shares(row) == {"receive": 4, "queue": 1, "preprocess": 2, "infer": 3}, "receive is a part of queue"
    assert set(COLOURS) == set(STAGES) - {"total"}
    draw(report, tmp_path / "plot.png")
    drawn = cv2.imread(str(tmp_path / "plot.png"))
    assert drawn is not None
    for colour in (COLOURS["receive"], COLOURS["infer"]):
        assert (drawn[90:124] == np.array(colour)).all(axis=2).any(), "a stage has no part of the first bar"
    with pytest.raises(InputError, match="can't be written"):
        draw(report, tmp_path / "none" / "plot.png")


@pytest.mark.parametrize("name", ["plot.xyz", "plot", "none/plot.png"])
def test_where_no_plot_can_be_written_is_told_before_anything_is_measured(name: str, tmp_path: Path) -> None:
    check_place(tmp_path / "plot.png")
    with pytest.raises(UsageError, match="no plot can be written there"):
        check_place(tmp_path / name)
    ended = CliRunner().invoke(bench_command, ["--plot", str(tmp_path / name), "--source", "none.mp4"])
    assert isinstance(ended.exception, UsageError)


def test_a_plot_that_fails_costs_no_measurement(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise cv2.error("the disk is full")

    monkeypatch.setattr(cv2, "imwrite", refuse)
    monkeypatch.setattr("edgeinfer.commands.bench.benchmark", lambda *_: report)
    ended = CliRunner().invoke(bench_command, ["--plot", str(tmp_path / "plot.png"), "--json"])
    assert json.loads(ended.stdout)["rounds"] == 1
    assert isinstance(ended.exception, InputError)


def test_every_way_has_a_colour_of_its_own() -> None:
    assert set(GROWTH_COLOURS) == set(KINDS)
    assert len(set(GROWTH_COLOURS.values())) == len(KINDS)


@pytest.mark.parametrize(("text", "numbers"), [("1", (1,)), ("1,4,16", (1, 4, 16)), ("256", (256,))])
def test_numbers_of_sources(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "257", "1,x", "1,,2", "-1"])
def test_what_is_no_number_of_sources(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_numbers(text)


@pytest.mark.parametrize(("text", "kinds"), [(None, KINDS), ("rtsp", ("rtsp",)), ("live,file", ("live", "file"))])
def test_ways_that_are_named(text: str | None, kinds: tuple[str, ...]) -> None:
    assert parse_kinds(text) == kinds


@pytest.mark.parametrize("text", ["", "Live", "file,", "camera"])
def test_ways_that_there_are_not(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected some of memory"):
        parse_kinds(text)


def test_growth_goes_in_powers_of_two_up_to_its_number() -> None:
    plan = BenchPlan(None, (3,), 1, 20, rtsp=(5,), growth=6, only=("video", "rtsp"))
    labels = ["video", *(f"video ×{n}" for n in (2, 3, 4, 6)), "rtsp", *(f"rtsp ×{n}" for n in (2, 4, 5, 6))]
    assert [way.label for way in plan.ways()] == labels
    none = BenchPlan(None, (1,), 1, 20, rtsp=(), growth=4, only=("rtsp",))
    assert none.ways() == []


def test_the_second_plot_has_a_line_for_what_grows(report: Report, tmp_path: Path) -> None:
    raw = [RawRun({"1x1": 10.0})]
    numbers = {"video": 1, "video ×2": 2, "video ×4": 4, "rtsp": 1}
    rows = {name: table_row(Feed("x", number, live=True), [run(number)], raw) for name, number in numbers.items()}
    found = lines(msgspec.structs.replace(report, pipelines=rows))
    assert found["CPU ms per frame"] == {"video": {1: 1001, 2: 1002, 4: 1004}}, "one point is no line"
    assert found["MB a source"] == {"video": {1: 101, 2: 102, 4: 104}}
    draw_growth(msgspec.structs.replace(report, pipelines=rows), tmp_path / "growth.png")
    assert cv2.imread(str(tmp_path / "growth.png")) is not None
    with pytest.raises(InputError, match="can't be written"):
        draw_growth(report, tmp_path / "none" / "growth.png")


# What it takes


def test_the_children_count() -> None:
    code = "import sys\nx = sum(i * i for i in range(3_000_000))\nprint(flush=True)\nsys.stdin.read()"
    command, family = [sys.executable, "-c", code], Family()
    before, spent_s = family.footprint(), family.children_cpu_s()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert {os.getpid(), child.pid} <= set(family.members())
        after = family.footprint()
        assert (after.processes - before.processes, after.threads - before.threads) == (1, 1)
        assert after.memory > before.memory
        assert family.children_cpu_s() > spent_s
    assert child.pid not in family.members()
    assert family.children_cpu_s() > spent_s, "those that have ended count still"


class Footprints:
    """A family whose footprints are invented."""

    def __init__(self, *memory: int) -> None:
        self._left = [Footprint(each, each // 10, 1) for each in memory]

    def footprint(self) -> Footprint:
        return self._left.pop(0)


def test_what_sources_add_is_the_most_beyond_a_daemon_that_waits_for_them() -> None:
    clock, state = Clock(), {"idle": True, "warm": False}
    family: Any = Footprints(40_000_000, 50_000_000, 100_000_000, 180_000_000, 140_000_000)
    growth = Growth(family, lambda: state["idle"], lambda: state["warm"], clock)
    assert growth.memory_mb(1) is None
    growth.look()
    growth.look()
    assert growth.threads(1) is None, "nothing has come yet"
    state["idle"] = False
    growth.look()  # no look: neither idle nor warm
    state["warm"] = True
    for _ in range(2):
        growth.look()
        growth.look()
        clock.s += BUSY_LOOK_S
    clock.s -= BUSY_LOOK_S / 2
    growth.look(last=True)
    assert (growth.memory_mb(4), growth.threads(4)) == (32.5, 3_250_000.0)


def test_a_look_in_which_a_source_was_opened_is_none_at_a_daemon_that_waits() -> None:
    idle = iter([True, True, True, False])
    growth = Growth(cast("Family", Footprints(50, 500, 100)), lambda: next(idle, False), lambda: True, Clock())
    for _ in range(3):
        growth.look()
    assert growth.threads(1) == 5


def test_memory_that_was_given_back_is_no_measurement() -> None:
    idle = iter([True, True])
    growth = Growth(cast("Family", Footprints(500, 100)), lambda: next(idle, False), lambda: True, Clock())
    growth.look()
    growth.look()
    assert (growth.memory_mb(1), growth.threads(1)) == (None, None)


def test_what_children_compute_is_part_of_a_frames_cost() -> None:
    wall, children = Clock(), Clock()
    stopwatch = Stopwatch(wall, Clock(), children)
    for number in range(WARM_UP + 9):
        wall.s += LOOK_S
        children.s += 100 if number < WARM_UP else 0.5
        stopwatch.write(example("detections"), None)
        stopwatch.look()
    assert stopwatch.is_warm
    assert stopwatch.per_frame() == pytest.approx((LOOK_S, 0.5))


def test_of_a_run_that_is_shorter_than_the_time_between_two_looks_the_last_look_counts() -> None:
    children = Clock()
    stopwatch = Stopwatch(Clock(), Clock(), children)
    for _ in range(WARM_UP + 9):
        children.s += 0.5
        stopwatch.write(example("detections"), None)
        stopwatch.look()
    assert stopwatch.per_frame()[1] == 0
    stopwatch.look(last=True)
    assert stopwatch.per_frame()[1] == pytest.approx(0.5)


def test_nobody_but_the_sampler_looks_at_the_children() -> None:
    def looked() -> float:
        raise AssertionError("on the publisher's thread")

    stopwatch = Stopwatch(children=looked)
    for _ in range(WARM_UP + 9):
        stopwatch.write(example("detections"), None)
    assert min(stopwatch.per_frame()) >= 0


@pytest.mark.slow
def test_the_sampler_knows_its_own_time_and_looks_once_more_at_the_end() -> None:
    sampler, seen, several = Sampler(), list[tuple[bool, str]](), threading.Event()

    def look(last: bool) -> None:
        sum(number * number for number in range(100_000))
        seen.append((last, threading.current_thread().name))
        if len(seen) == 2:
            several.set()

    with sampler.sampling(look):
        assert several.wait(30)
    assert [last for last, _ in seen] == [False] * (len(seen) - 1) + [True]
    assert {name for _, name in seen} == {"sampler"}
    assert sampler.spent_s > 0

    def fail(last: bool) -> None:
        raise InputError("no /proc")

    with pytest.raises(InputError, match="no /proc"), Sampler().sampling(fail):
        pass


# A run in a process of its own


def order(way: Way, *overrides: tuple[str, Any], frames: int = 40) -> Order:
    plain = [("backend.name", "onnxruntime"), ("model.path", "nanodet-g")]
    return Order(way, [*plain, *overrides], frames, "/none/clip.mp4", "", os.getpid())


@pytest.mark.slow
def test_a_run_is_of_a_fresh_process_and_its_errors_are_raised_here() -> None:
    before = len(memory.images())
    found = run_apart(order(Way("memory", 1)))
    assert (found.published, found.model.partition("@")[0], before) == (40, "nanodet-g", memory.DISTINCT)
    assert found.cpu_ms > 0
    with pytest.raises(InputError, match="no such file") as caught:
        run_apart(order(Way("file", 1)))
    assert caught.value.exit_code == InputError.exit_code


def test_a_run_whose_process_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FatalError, match="ended with code 1"):
        run_apart(order(Way("memory", 1)))
