"""TensorRT: which engine a model needs here, taken from the cache or built; `_tensorrt.py` runs it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edgeinfer.backends import _raw
from edgeinfer.backends._tensorrt import Settings, TensorRt
from edgeinfer.config.card import InputCard, Model, ModelCard
from edgeinfer.engine import machine, toolkit
from edgeinfer.engine.build.card_samples import samples_in, tolerance_of, verification_samples
from edgeinfer.engine.build.progress import OnProgress
from edgeinfer.engine.build.scratch import ensure_somewhere, open_cache
from edgeinfer.engine.build.task import Extras, Task, make_task
from edgeinfer.engine.build.tuned import tuned
from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.options import BuildOptions, Precision, parse_size, usual_batches
from edgeinfer.engine.store import foreign
from edgeinfer.engine.store.cache import CachedEngine, default_root
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.probation import Probation
from edgeinfer.errors import OutOfMemoryError
from edgeinfer.types import Image

log = logging.getLogger(__name__)

DLA_BATCH = 1
"""A DLA runs whole batches only. A larger one, which `model.max_batch` asks for, pays where cameras are in step."""


class Options(Struct, frozen=True, kw_only=True):
    """Which engine is built, and how many batches it may run at once (`streams`).

    `spin` waits for the GPU without sleeping: a core for some microseconds of latency. `graphs: false` launches every
    kernel by itself, and `gpu_preprocess: false` preprocesses on the CPU.
    `calibration_data` is a folder of pictures for `precision: int8`; `cache` a folder instead of the usual one.
    `dla` is a DLA core, which takes `fp16` and `int8`, and batches of one size: `model.max_batch`, 1 by default.
    Kernels are chosen for batches of `opt_batch`: by default what `edgeinfer build --tune` found, or else the largest.
    `profiles: 2` has others chosen for single pictures besides, which is what a lone camera runs: the build takes two
    to four times as long, and the engine more memory.
    """

    precision: Precision = "fp16"
    streams: Annotated[int, Meta(ge=1, le=64)] = 2
    spin: bool = False
    graphs: bool = True
    gpu_preprocess: bool = True
    opt_level: Annotated[int, Meta(ge=0, le=5)] | None = None
    workspace: str | None = None
    tactic_sources: tuple[str, ...] | None = None
    opt_batch: Annotated[int, Meta(ge=1, le=1024)] | None = None
    profiles: Literal[1, 2] = 1
    dla: Annotated[int, Meta(ge=0, le=1)] | None = None
    plugins: tuple[str, ...] = ()
    calibration_data: str | None = None
    calibrator: Literal["entropy", "minmax"] = "entropy"
    cache: str | None = None


def open(model: Model, max_batch: int | None, options: Options) -> TensorRt:  # noqa: A001 (the plugin interface)
    """The backend, with an engine from the cache or built now. Blocks for the whole build. Raises EdgeinferError."""
    return prepare(model, max_batch, options).open(lambda _: None, threading.Event())


def prepare(model: Model, max_batch: int | None, options: Options) -> Preparation:
    """See `StagedBackendModule.prepare`."""
    return Preparation(model, max_batch, options)


class Preparation:
    """What is to run, found out before anything is built.

    Raises UnavailableError where TensorRT or the GPU is missing, and what `make_task` and, for a plan of the user's
    own, `foreign.accept` raise.
    """

    def __init__(self, model: Model, max_batch: int | None, options: Options, singles: bool = True) -> None:
        """`singles`: see `Settings`."""
        self._options, self._card, self._singles = options, model.card, singles
        self._toolkit = toolkit.load()
        here = machine.detect(self._toolkit, needs_gpu=True)
        self._max_batch = max_batch or (model.card.max_batch if options.dla is None else DLA_BATCH)
        self._dla_core = options.dla
        self._cache = open_cache(Path(options.cache) if options.cache else default_root(os.environ))
        self._plan: bytes | None = None
        self._task: Task | None = None
        if model.is_plan:
            self._plan, self._dla_core = accepted(model.path, here, options.dla)
        else:
            task = make_task(model.path, build_options(options, self._max_batch), here, extras_of(model.card, options))
            self._task = tuned(task, self._cache) if options.opt_batch is None else task
            lack = self._task.lack_of_tools()
            if lack is not None and not self.cached:
                raise lack

    @property
    def cached(self) -> bool:
        """Whether nothing has to be built."""
        return self._task is None or self._cache.usable(self._task.key) is not None

    def open(self, on_progress: OnProgress, cancel: threading.Event) -> TensorRt:
        """Builds the engine where the cache has none, loads it and runs it once. Raises EdgeinferError."""
        if self._task is None:
            return self._start(self._plan or b"", None, "")
        engine, self._cache = ensure_somewhere(self._task, self._cache, on_progress, cancel)
        try:
            return self._load(engine)
        except PlanError as error:  # sound by its checksum, and still not for this TensorRT: a new one may be
            log.warning("%s; building the engine again", error.message)
            self._cache.quarantine(engine.key, f"TensorRT refused its engine: {error.message}")
            engine, self._cache = ensure_somewhere(self._task, self._cache, on_progress, cancel)
            return self._load(engine)

    def _load(self, engine: CachedEngine) -> TensorRt:
        share = engine.manifest.build.dla
        return self._start(engine.read(), Probation(self._cache, engine), str(share or ""))

    def _start(self, plan: bytes, probation: Probation | None, note: str) -> TensorRt:
        options = self._options
        settings = Settings(
            self._max_batch,
            options.streams,
            options.spin,
            options.graphs,
            options.gpu_preprocess,
            options.plugins,
            options.precision if probation else "plan",
            self._dla_core,
            note,
            self._singles,
        )
        try:
            return TensorRt(self._toolkit, plan, self._card.input, settings, probation)
        except OutOfMemoryError:
            if probation is not None:
                probation.pass_()  # not the engine's fault
            raise


def accepted(path: Path, here: Target, dla_core: int | None) -> tuple[bytes, int | None]:
    """The user's own plan, if it fits here, and the DLA core that it is for: `dla_core`, unless its side-car says so.

    Raises PlanError or UnsafeError with the reason.
    """
    found = foreign.accept(path, here)
    for warning in found.warnings:
        log.warning("%s", warning)
    if dla_core is None and found.sidecar is not None:
        dla_core = found.sidecar.fields.dla_core
    return found.plan, dla_core


def extras_of(card: ModelCard, options: Options) -> Extras:
    """What to calibrate and to verify with."""
    given = samples_in(options.calibration_data, card.input) if options.calibration_data else None
    return Extras(
        calibration=given,
        verification=None if given else verification_samples(card.input),
        tolerance=tolerance_of(card),
    )


def build_options(options: Options, max_batch: int) -> BuildOptions:
    """What `edgeinfer build` makes of the same settings; equal options give the same engine."""
    return BuildOptions(
        precision=options.precision,
        batch=usual_batches(max_batch, options.dla is not None, options.opt_batch),
        single=options.profiles == 2,
        pools={"WORKSPACE": parse_size(options.workspace)} if options.workspace else {},
        optimization_level=options.opt_level,
        dla_core=options.dla,
        calibrator=options.calibrator,
        tactic_sources=options.tactic_sources,
        plugins=tuple(str(Path(path).resolve()) for path in options.plugins),
    )


def raw_sweep(
    model: Model, max_batch: int | None, options: Options, images: Sequence[Image], seconds: float
) -> tuple[dict[str, float], dict[str, str]]:
    """What the engine that serves can do alone: see `SweepingBackendModule`, and `_raw.py` for the method."""
    wide = msgspec.structs.replace(options, streams=_raw.MOST_STREAMS, graphs=False)
    rates, profiles = dict[str, float](), dict[str, str]()
    for batches in (_raw.BATCHES[:1], _raw.BATCHES[1:]):  # contexts for single pictures take memory from the others
        backend = Preparation(model, max_batch, wide, singles=1 in batches).open(lambda _: None, threading.Event())
        try:
            found = _raw.sweep(backend, images, seconds, batches=batches)
        finally:
            backend.close()
        rates, profiles = {**rates, **found.rates}, {**profiles, **found.profiles}
        if len(backend.batches) == 1:
            break  # there is no other
    return rates, profiles


def measure(
    task: Task, engine: CachedEngine, card: InputCard, batches: Sequence[int], images: Sequence[Image], seconds: float
) -> dict[str, float]:
    """Frames per second of an engine by "STREAMSxBATCH" for these batches, with as many streams as a daemon has."""
    used = Options()
    plugins, singles = task.options.plugins, 1 in batches
    settings = Settings(task.options.batch[2], used.streams, False, False, True, plugins, "tuned", singles=singles)
    backend = TensorRt(toolkit.load(task.machine.flavour), engine.read(), card, settings, None)
    try:
        return _raw.sweep(backend, images, seconds, (backend.slots,), batches).rates
    finally:
        backend.close()
