"""The measurements. Each returns plain numbers; `report.py` shows them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from edgeinfer.bench.memory import images
from edgeinfer.config import plugins
from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.errors import InputError, UnavailableError
from edgeinfer.gpu.device import cuda_runtime
from edgeinfer.messages import DetectionsMessage, Message
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import Float32, Result

WARM_UP = 10
SWEEP_S = 0.5
"""How long each number of streams and batch size is measured."""


class Spread(Struct, frozen=True):
    """Median, smallest and largest of the rounds."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return Spread(*(round(value, 4) for value in (statistics.median(values), min(values), max(values))))


class RawRun(Struct, frozen=True):
    """What the runtime does alone, by "STREAMSxBATCH"; `best` of them is what the pipeline is held against."""

    fps: dict[str, float]

    @property
    def best(self) -> float:
        """The highest rate."""
        return max(self.fps.values())


class PipelineRun(Struct, frozen=True):
    """One run of the whole pipeline. `cpu_ms` is our CPU time per frame; `stages_ms` maps a stage to p50, p95, p99.

    `gpu_mb` is how much device memory the run took, None without a GPU; `detail` how the backend ran.
    """

    model: str
    backend: str
    versions: dict[str, str]
    fps: float
    cpu_ms: float
    published: int
    dropped: int
    stages_ms: dict[str, dict[str, float]]
    gpu_mb: float | None
    detail: str


class Testbed(Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    python: str
    versions: dict[str, str]
    backend: str
    model: str


class Stopwatch:
    """A sink that notes when the first and the last result after the warm-up came out, on both clocks."""

    blocks = False

    def __init__(self) -> None:
        self.count = 0
        self._first = (0.0, 0.0)
        self._last = (0.0, 0.0)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if not isinstance(message, DetectionsMessage):
            return
        self.count += 1
        self._last = (time.perf_counter(), time.process_time())
        if self.count == WARM_UP:
            self._first = self._last

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""

    def per_frame(self) -> tuple[float, float]:
        """Seconds and CPU seconds per frame. Needs more than WARM_UP frames."""
        frames = self.count - WARM_UP
        if frames < 1:
            raise InputError(
                f"{self.count} frames came out, and measuring takes more than {WARM_UP}", "use a longer video"
            )
        return (self._last[0] - self._first[0]) / frames, (self._last[1] - self._first[1]) / frames


def raw_run(config: Config, frames: int) -> RawRun:
    """The runtime and nothing else, its inputs ready before the clock starts.

    A backend with `raw_sweep` shows what several streams and batches do, inputs and outputs staying on the device;
    another runs one picture at a time.
    """
    model = load_model(config.model.path, config.model.card, config.model.sha256)
    module = plugins.load("backends", config.backend.name)
    if hasattr(module, "raw_sweep"):
        return RawRun(module.raw_sweep(model, config.backend.options, images(), SWEEP_S))
    infer = module.raw(model, config.backend.options)
    inputs = _inputs(model)
    for index in range(WARM_UP):
        infer(inputs[index])
    started = time.perf_counter()
    for index in range(frames):
        infer(inputs[index % len(inputs)])
    return RawRun({"1x1": frames / (time.perf_counter() - started)})


def free_gpu_memory() -> int | None:
    """Bytes of device memory that nobody uses, None without a GPU."""
    try:
        status, free, _ = cuda_runtime().cudaMemGetInfo()
    except UnavailableError:
        return None
    return int(free) if int(status) == 0 else None


def pipeline_run(config: Config) -> PipelineRun:
    """The daemon as it is, with the config's sources, publishing on its socket. Every source must come to an end."""
    stopwatch, free = Stopwatch(), free_gpu_memory()
    daemon = Daemon(config, {"stopwatch": stopwatch})
    with Signals() as signals:
        daemon.start()
        while daemon.running() and not signals.received:
            time.sleep(0.02)
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
        versions=dict(summary.versions),
        fps=round(1 / seconds, 3),
        cpu_ms=round(cpu_seconds * 1e3, 3),
        published=stopwatch.count,
        dropped=sum(sum(books.dropped.values()) for books in summary.sources.values()),
        stages_ms={stage: dict(values) for stage, values in summary.latency_ms.items()},
        gpu_mb=None if free is None or left is None else round((free - left) / 1e6, 1),
        detail=summary.detail,
    )


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
