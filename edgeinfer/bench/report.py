"""A whole benchmark: rounds of every measurement in turn, so that a machine that changes its pace harms all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edgeinfer.bench.cameras import Cameras, cameras
from edgeinfer.bench.clip import write_clip
from edgeinfer.bench.figures import PipelineRun, RawRun, Report, Spread, by_shape, table_row
from edgeinfer.bench.measure import pipeline_run, raw_run, testbed
from edgeinfer.bench.ways import BenchPlan, Overrides, Way, configured
from edgeinfer.config.card import load_model
from edgeinfer.config.paths import check_readable
from edgeinfer.config.settings import AUTO, FALLBACK, TENSORRT, Config, load_config
from edgeinfer.daemon.selection import choose
from edgeinfer.errors import EdgeinferError

CLIP_FRAMES = 600

Tell = Callable[[str], None]


def benchmark(overrides: Overrides, plan: BenchPlan, tell: Tell) -> Report:
    """Runs the raw network and the pipeline in each of the plan's ways, in turn, in rounds."""
    with ExitStack() as stack:
        clip = _clip(plan, stack, tell)
        overrides = [*overrides, ("backend.name", concrete_backend(overrides))]
        ways, server = plan.ways(), None
        if any(way.kind == "rtsp" for way in ways):
            server = _cameras(clip, stack, tell)
            ways = [way for way in ways if way.kind != "rtsp" or server is not None]
        url = server.url if server is not None else ""
        configs = {way: configured(way, overrides, plan.frames, clip, url) for way in ways}
        raw, runs = _rounds(configs, plan, server, tell)
    rows = {way.label: table_row(way.feed(config), runs[way], raw) for way, config in configs.items()}
    some, best = next(iter(runs.values()))[0], Spread.of([run.best for run in raw])
    shapes = by_shape(raw)
    return Report(testbed(some), some.detail, plan.rounds, plan.frames, best, shapes, rows, raw[0].engines)


def _rounds(
    configs: dict[Way, Config], plan: BenchPlan, server: Cameras | None, tell: Tell
) -> tuple[list[RawRun], dict[Way, list[PipelineRun]]]:
    raw, runs = list[RawRun](), {way: list[PipelineRun]() for way in configs}
    for number in range(1, plan.rounds + 1):
        tell(f"round {number} of {plan.rounds}: raw network")
        raw.append(raw_run(next(iter(configs.values())), plan.frames))
        for way, config in configs.items():
            tell(f"round {number} of {plan.rounds}: pipeline, {way.label}")
            runs[way].append(pipeline_run(config, () if server is None else (server.pid,)))
    return raw, runs


def _clip(plan: BenchPlan, stack: ExitStack, tell: Tell) -> str:
    """The plan's video, or one that is there until the stack ends."""
    clip = plan.clip
    if clip is None:
        tell("writing a clip")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeinfer-bench-"))
        clip = str(Path(folder) / "demo.mp4")
        write_clip(Path(clip), min(plan.frames, CLIP_FRAMES), tell)
    check_readable(Path(clip))
    return clip


def _cameras(clip: str, stack: ExitStack, tell: Tell) -> Cameras | None:
    """The server for network cameras; None where it can't play this video, or the machine lacks what it takes."""
    try:
        return stack.enter_context(cameras(Path(clip)))
    except EdgeinferError as error:
        tell(f"no network cameras: {error.message}")
        return None


def concrete_backend(overrides: Overrides) -> str:
    """The plugin that `auto` means here, so that all measurements are of the same one."""
    config = load_config(None, overrides)
    if config.backend.name != AUTO:
        return config.backend.name
    choice = choose(load_model(config.model.path, config.model.card, config.model.sha256), config, None)
    if choice.now is not None:
        choice.now.close()
    return FALLBACK if choice.later is None else TENSORRT
