"""The measurements. Each returns plain numbers; `figures.py` reckons with them and `report.py` shows them."""

from __future__ import annotations

import os
import platform
import time

import numpy as np

from edgeinfer import __version__
from edgeinfer.backends import RawBackendModule, SweepingBackendModule
from edgeinfer.bench.figures import PipelineRun, RawRun, Testbed
from edgeinfer.bench.footprint import Family, Growth
from edgeinfer.bench.memory import images
from edgeinfer.bench.sampler import Sampler
from edgeinfer.bench.stopwatch import Stopwatch, rate
from edgeinfer.config import plugins
from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.errors import EdgeinferError, UnavailableError
from edgeinfer.gpu.device import free_memory
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.telemetry.snapshot import SourceSnapshot
from edgeinfer.types import Float32

SWEEP_S = 0.5
"""How long each number of streams and batch size is measured."""


def raw_run(config: Config, frames: int) -> RawRun:
    """The runtime and nothing else, its inputs ready before the clock starts.

    A backend with `raw_sweep` shows what several streams and batches do, inputs and outputs staying on the device;
    another runs one picture at a time.
    """
    model = load_model(config.model.path, config.model.card, config.model.sha256)
    module = plugins.load("backends", config.backend.name)
    if isinstance(module, SweepingBackendModule):
        options, largest = config.backend.options, config.model.max_batch
        return RawRun(*module.raw_sweep(model, largest, options, images(), SWEEP_S))
    if not isinstance(module, RawBackendModule):
        raise UnavailableError(
            f"backend {config.backend.name!r} can't run without the pipeline, so there is nothing to measure it against"
        )
    return RawRun({"1x1": rate(module.raw(model, config.backend.options), _inputs(model), frames)})


def free_gpu_memory() -> int | None:
    """Bytes of device memory that nobody uses, None without a GPU."""
    try:
        return free_memory()
    except EdgeinferError:
        return None


def pipeline_run(config: Config) -> PipelineRun:
    """The daemon as it is, with the config's sources, publishing on its socket. Every source must come to an end.

    Memory is that of a fresh process, see `run_apart`.
    """
    family, free, sampler = Family(), free_gpu_memory(), Sampler()
    stopwatch = Stopwatch(cpu=lambda: time.process_time() - sampler.spent_s, children=family.children_cpu_s)
    daemon = Daemon(config, {"stopwatch": stopwatch})
    growth = Growth(family, lambda: daemon.loading, lambda: stopwatch.is_warm)
    with Signals() as signals:
        with sampler.sampling(stopwatch.look, growth.look):
            daemon.start()
            daemon.run(lambda: bool(signals.received))
        left = free_gpu_memory()
        summary = daemon.stop(Patience(signals))
    if signals.received:
        raise KeyboardInterrupt
    for failure in daemon.failures().values():
        raise failure
    seconds, cpu_seconds = stopwatch.per_frame()
    return PipelineRun(
        model=summary.model,
        backend=summary.backend,
        versions={"edgeinfer": __version__, **summary.versions},
        fps=round(1 / seconds, 3),
        cpu_ms=round(cpu_seconds * 1e3, 3),
        published=stopwatch.count,
        dropped=sum(sum(books.dropped.values()) for books in summary.sources.values()),
        stages_ms={stage: dict(values) for stage, values in summary.latency_ms.items()},
        gpu_mb=None if free is None or left is None else round((free - left) / 1e6, 1),
        detail=summary.detail,
        source_mb=growth.memory_mb(len(config.sources)),
        source_threads=growth.threads(len(config.sources)),
        decoder=_decoder(next(iter(summary.sources.values()))),
    )


def _decoder(first: SourceSnapshot) -> str:
    """What has decoded the first source, and why that; empty where it didn't say."""
    return "" if first.decoder is None else "{} ({})".format(*first.decoder)


def testbed(run: PipelineRun) -> Testbed:
    """Where `run` was measured."""
    return Testbed(
        _processor(), len(os.sched_getaffinity(0)), platform.python_version(), run.versions, run.backend, run.model
    )


def _inputs(model: Model) -> list[Float32]:
    card = model.card.input
    preprocess = Preprocessor(card)
    tensors = []
    for image in images():
        tensor = np.empty((1, 3, card.height, card.width), np.float32)
        preprocess(image, tensor[0])
        tensors.append(tensor)
    return tensors


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
