"""A whole benchmark: rounds of every measurement in turn, so that a machine that changes its pace harms all alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgeinfer.bench.apart import Order, run_apart
from edgeinfer.bench.cameras import cameras
from edgeinfer.bench.clip import write_clip
from edgeinfer.bench.figures import PipelineRun, RawRun, Report, Spread, by_shape, table_row
from edgeinfer.bench.measure import raw_run, testbed
from edgeinfer.bench.ways import BenchPlan, Overrides, Way
from edgeinfer.config.card import load_model
from edgeinfer.config.paths import check_readable
from edgeinfer.config.settings import AUTO, FALLBACK, TENSORRT, load_config
from edgeinfer.daemon.selection import choose
from edgeinfer.errors import EdgeinferError, UsageError

CLIP_FRAMES = 600
NOTHING_LEFT, NAME_OTHERS = "no way of feeding the pipeline is left to measure", "name others with --only"

Tell = Callable[[str], None]


def benchmark(overrides: Overrides, plan: BenchPlan, tell: Tell) -> Report:
    """Runs the raw network and the pipeline in each of the plan's ways, in turn, in rounds."""
    if not plan.ways():
        raise UsageError(NOTHING_LEFT, NAME_OTHERS)
    with ExitStack() as stack:
        clip = _clip(plan, stack, tell)
        overrides = [*overrides, ("backend.name", concrete_backend(overrides))]
        camera = _cameras(clip, stack, tell) if any(way.kind == "rtsp" for way in plan.ways()) else ""
        orders = [
            Order(way, overrides, plan.frames, clip, camera, os.getpid())
            for way in plan.ways()
            if way.kind != "rtsp" or camera
        ]
        if not orders:
            raise UsageError(NOTHING_LEFT, NAME_OTHERS)
        configs = {order.way: order.config() for order in orders}
        raw, runs = _rounds(orders, plan, tell)
    rows = {way.label: table_row(way.feed(config), runs[way], raw) for way, config in configs.items()}
    some, best = next(iter(runs.values()))[0], Spread.of([run.best for run in raw])
    shapes = by_shape(raw)
    return Report(testbed(some), some.detail, plan.rounds, plan.frames, best, shapes, rows, raw[0].engines)


def _rounds(orders: Sequence[Order], plan: BenchPlan, tell: Tell) -> tuple[list[RawRun], dict[Way, list[PipelineRun]]]:
    raw, runs = list[RawRun](), {order.way: list[PipelineRun]() for order in orders}
    for number in range(1, plan.rounds + 1):
        tell(f"round {number} of {plan.rounds}: raw network")
        raw.append(raw_run(orders[0].config(), plan.frames))
        for order in orders:
            tell(f"round {number} of {plan.rounds}: pipeline, {order.way.label}")
            runs[order.way].append(run_apart(order))
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


def _cameras(clip: str, stack: ExitStack, tell: Tell) -> str:
    """Where the network cameras are; empty where it can't play this video, or the machine lacks what it takes."""
    try:
        return stack.enter_context(cameras(Path(clip)))
    except EdgeinferError as error:
        tell(f"no network cameras: {error.message}")
        return ""


def concrete_backend(overrides: Overrides) -> str:
    """The plugin that `auto` means here, so that all measurements are of the same one."""
    config = load_config(None, overrides)
    if config.backend.name != AUTO:
        return config.backend.name
    choice = choose(load_model(config.model.path, config.model.card, config.model.sha256), config, None)
    if choice.now is not None:
        choice.now.close()
    return FALLBACK if choice.later is None else TENSORRT
