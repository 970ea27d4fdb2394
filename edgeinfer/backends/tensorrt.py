"""TensorRT: one engine, an execution context and a stream per slot, buffers pinned and allocated once."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct

from edgeinfer.backends._cuda import Cuda, Pair
from edgeinfer.card import Model, ModelCard
from edgeinfer.checkset import samples_in, tolerance_of, verification_samples
from edgeinfer.engine import diagnose, foreign, machine, toolkit
from edgeinfer.engine.cache import Cache, CachedEngine, default_root
from edgeinfer.engine.construct import make_logger
from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.key import Machine
from edgeinfer.engine.options import BuildOptions, Precision, parse_size, usual_batches
from edgeinfer.engine.progress import OnProgress
from edgeinfer.engine.runner import DTYPES
from edgeinfer.engine.scratch import ensure_somewhere, open_cache
from edgeinfer.engine.task import Extras, Task, make_task
from edgeinfer.engine.toolkit import Toolkit, member
from edgeinfer.errors import ConfigError, FatalError, UnavailableError
from edgeinfer.interfaces import Slot
from edgeinfer.types import Float32, TensorSpec

log = logging.getLogger(__name__)

DEADLINE_S = 10.0
"""A batch that takes longer will not come any more."""
POLL_S = 50e-6
PROBATION_S = 60.0
"""An engine that has served so long is not what ends the process."""


class Options(Struct, frozen=True, kw_only=True):
    """Which engine is built, and how many batches it may run at once (`streams`).

    `calibration_data` is a folder of pictures for `precision: int8`; `cache` a folder instead of the usual one.
    """

    precision: Precision = "fp16"
    streams: Annotated[int, Meta(ge=1, le=64)] = 2
    opt_level: Annotated[int, Meta(ge=0, le=5)] | None = None
    workspace: str | None = None
    tactic_sources: tuple[str, ...] | None = None
    dla: Annotated[int, Meta(ge=0, le=1)] | None = None
    plugins: tuple[str, ...] = ()
    calibration_data: str | None = None
    calibrator: Literal["entropy", "minmax"] = "entropy"
    cache: str | None = None


def open(model: Model, max_batch: int | None, options: Options) -> TensorRt:  # noqa: A001 (the plugin interface)
    """The backend, with an engine from the cache or built now. Blocks for the whole build. Raises EdgeinferError."""
    return Prepared(model, max_batch, options).open(lambda _: None, threading.Event())


class Prepared:
    """What is to run, found out before anything is built.

    Raises UnavailableError where TensorRT or the GPU is missing, and what `make_task` and, for a plan of the user's
    own, `foreign.accept` raise.
    """

    def __init__(self, model: Model, max_batch: int | None, options: Options) -> None:
        self._options = options
        self._toolkit = toolkit.load()
        here = machine.detect(self._toolkit)
        if here.gpu is None:
            raise UnavailableError("TensorRT is here, but no GPU that it can use", "see edgeinfer doctor")
        self._max_batch = max_batch or model.card.max_batch
        self._cache = open_cache(Path(options.cache) if options.cache else default_root(os.environ))
        self._plan: bytes | None = None
        self._task: Task | None = None
        if model.is_plan:
            self._plan = accepted(model.path, here)
        else:
            self._task = make_task(
                model.path, build_options(options, self._max_batch), here, extras_of(model.card, options)
            )

    @property
    def cached(self) -> bool:
        """Whether nothing has to be built."""
        return self._task is None or self._cache.usable(self._task.key) is not None

    def open(self, on_progress: OnProgress, cancel: threading.Event) -> TensorRt:
        """Builds the engine where the cache has none, loads it and runs it once. Raises EdgeinferError."""
        if self._task is None:
            return TensorRt(self._toolkit, self._plan or b"", self._max_batch, self._options, None)
        engine, self._cache = ensure_somewhere(self._task, self._cache, on_progress, cancel)
        try:
            return self._load(engine)
        except PlanError as error:  # sound by its checksum, and still not for this TensorRT: a new one may be
            log.warning("%s; building the engine again", error.message)
            self._cache.quarantine(engine.key)
            engine, self._cache = ensure_somewhere(self._task, self._cache, on_progress, cancel)
            return self._load(engine)

    def _load(self, engine: CachedEngine) -> TensorRt:
        probation = Probation(self._cache, engine)
        return TensorRt(self._toolkit, engine.read(), self._max_batch, self._options, probation)


def accepted(path: Path, here: Machine) -> bytes:
    """The user's own plan, if it fits here. Raises PlanError or UnsafeError with the reason."""
    found = foreign.accept(path, here)
    for warning in found.warnings:
        log.warning("%s", warning)
    return found.plan


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
        batch=usual_batches(max_batch),
        pools={"WORKSPACE": parse_size(options.workspace)} if options.workspace else {},
        optimization_level=options.opt_level,
        dla_core=options.dla,
        calibrator=options.calibrator,
        tactic_sources=options.tactic_sources,
        plugins=tuple(str(Path(path).resolve()) for path in options.plugins),
    )


class Probation:
    """Counts against an engine that its process has not ended well while it was young; three times is enough."""

    def __init__(self, cache: Cache, engine: CachedEngine) -> None:
        self._cache, self._key = cache, engine.key
        self._until_s: float | None = time.monotonic() + PROBATION_S
        cache.strike(engine.key)

    def tick(self) -> None:
        """Called now and then while the engine serves."""
        if self._until_s is not None and time.monotonic() > self._until_s:
            self.pass_()

    def pass_(self) -> None:
        """The engine is cleared: it has served long enough, or its process ends well."""
        if self._until_s is not None:
            self._until_s = None
            self._cache.absolve(self._key)


class Lane(Slot):
    """A slot with its own execution context, stream and buffers. `submitted_s` is monotonic."""

    def __init__(self, cuda: Cuda, context: Any, pairs: dict[str, Pair], input_name: str) -> None:
        images = pairs[input_name]
        staged = images.host.dtype != np.float32
        super().__init__(np.zeros(images.host.shape, np.float32) if staged else images.host)
        self.staged = staged
        self.context, self.pairs, self.input_name = context, pairs, input_name
        self.stream, self.event = cuda.stream(), cuda.event()
        self.shape: tuple[int, ...] | None = None
        self.submitted_s = 0.0


class TensorRt:
    """See `Backend`. Used by one thread; CUDA calls release the interpreter."""

    def __init__(
        self, kit: Toolkit, plan: bytes, max_batch: int, options: Options, probation: Probation | None
    ) -> None:
        self._cuda = Cuda()
        self._probation = probation
        self._log: deque[str] = deque(maxlen=50)
        self._logger = make_logger(kit.trt, self._log, lambda _: None)
        toolkit.load_plugins(kit, self._logger, options.plugins)
        self._runtime = kit.trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise diagnose.explain(self._log, "loading the engine")
        self._tensors = _tensors(kit, self._engine)
        self._input = _only_input(kit, self._engine, self._tensors)
        fixed = self._tensors[self._input].shape[0]
        self._fixed = fixed if fixed > 0 else None
        self.max_batch = self._fixed or min(max_batch, self._engine.get_tensor_profile_shape(self._input, 0)[2][0])
        self.lane_depth = self.max_batch
        self.output_specs: Sequence[TensorSpec] = [spec for name, spec in self._tensors.items() if name != self._input]
        self._dtypes = {name: _dtype(kit, self._engine, name) for name in self._tensors}
        self._free = self._make_lanes(options.streams + 1)
        self.slots = len(self._free)
        self._in_flight: deque[Lane] = deque()
        self.name = f"{kit.flavour.replace('_', '-')}-{options.precision if probation else 'plan'}"
        self.versions = {kit.flavour: ".".join(map(str, kit.version))}
        self._warm_up()

    def acquire(self) -> Slot | None:
        """See `Backend.acquire`."""
        return self._free.pop() if self._free else None

    def submit(self, slot: Slot, count: int) -> None:
        """See `Backend.submit`. Raises FatalError."""
        lane = _lane(slot)
        rows = self._fixed or count
        images = lane.pairs[self._input]
        if lane.staged:
            np.copyto(images.host[:rows], lane.input[:rows], casting="same_kind")
        self._set_shape(lane, rows)
        images.upload(rows, lane.stream)
        if not lane.context.execute_async_v3(lane.stream):
            raise FatalError(
                f"TensorRT did not start a batch of {count}: {self._log[-1] if self._log else 'no reason'}"
            )
        for spec in self.output_specs:
            lane.pairs[spec.name].download(rows, lane.stream)
        self._cuda("cudaEventRecord", lane.event, lane.stream)
        lane.count, lane.submitted_s = count, time.monotonic()
        self._in_flight.append(lane)

    def collect(self, timeout_s: float) -> Slot | None:
        """See `Backend.collect`. Raises FatalError for a batch that has been running for ten seconds."""
        if not self._in_flight:
            return None
        lane, until_s = self._in_flight[0], time.monotonic() + timeout_s
        while not self._cuda.done(lane.event):
            now = time.monotonic()
            if now - lane.submitted_s > DEADLINE_S:
                raise FatalError(
                    f"the GPU has not finished a batch within {DEADLINE_S:.0f} s", "see dmesg, then restart"
                )
            if now >= until_s:
                return None
            time.sleep(POLL_S)
        self._in_flight.popleft()
        lane.infer_ms = (time.monotonic() - lane.submitted_s) * 1e3
        lane.outputs = {spec.name: lane.pairs[spec.name].host[: lane.count] for spec in self.output_specs}
        if self._probation is not None:
            self._probation.tick()
        return lane

    def release(self, slot: Slot) -> None:
        """See `Backend.release`."""
        slot.outputs = {}
        self._free.append(_lane(slot))

    def close(self) -> None:
        """See `Backend.close`. Contexts go before the engine, the engine before its runtime."""
        while self._in_flight:
            slot = self.collect(DEADLINE_S)
            if slot is not None:
                self.release(slot)
        for lane in self._free:
            for pair in lane.pairs.values():
                pair.close()
            self._cuda("cudaEventDestroy", lane.event)
            self._cuda("cudaStreamDestroy", lane.stream)
            lane.context = None
        self._free.clear()
        self._engine = None
        self._runtime = None
        if self._probation is not None:
            self._probation.pass_()

    def _make_lanes(self, wanted: int) -> list[Lane]:
        lanes: list[Lane] = []
        for _ in range(wanted):
            context = self._engine.create_execution_context()
            if context is None:
                raise FatalError("TensorRT can't create an execution context", "is there enough GPU memory?")
            if context.active_optimization_profile < 0:
                break  # TensorRT 8.5: a profile serves one context; later ones share it
            pairs = {name: Pair(self._cuda, self._largest(context, name), self._dtypes[name]) for name in self._tensors}
            for name, pair in pairs.items():
                context.set_tensor_address(name, pair.device)
            lanes.append(Lane(self._cuda, context, pairs, self._input))
        return lanes

    def _largest(self, context: Any, name: str) -> tuple[int, ...]:
        """The shape of a tensor at the largest batch."""
        context.set_input_shape(self._input, (self.max_batch, *self._tensors[self._input].shape[1:]))
        shape = tuple(int(size) for size in context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise ConfigError(
                f"the shape of output {name!r} depends on the data, which this backend can't follow",
                "--backend onnxruntime",
            )
        return shape

    def _set_shape(self, lane: Lane, rows: int) -> None:
        shape = (rows, *self._tensors[self._input].shape[1:])
        if lane.shape != shape:
            lane.context.set_input_shape(self._input, shape)
            lane.shape = shape

    def _warm_up(self) -> None:
        """The first run of every context does lazy work, which no frame should wait for."""
        for lane in list(self._free):
            self._free.remove(lane)
            self.submit(lane, 1)
            done = self.collect(DEADLINE_S)
            if done is None:
                raise FatalError("the engine did not finish its first run")
            self.release(done)


def raw(model: Model, options: Options) -> Callable[[Float32], object]:
    """The engine on one (1, 3, H, W) float32 array at a time, copied there and back, to measure against."""
    backend = open(model, None, options)

    def infer(tensor: Float32) -> object:
        slot = backend.acquire()
        assert slot is not None  # noqa: S101 (nothing else is in flight)
        slot.input[:1] = tensor
        backend.submit(slot, 1)
        done = backend.collect(DEADLINE_S)
        assert done is not None  # noqa: S101 (the deadline raises)
        backend.release(done)
        return None

    return infer


def _lane(slot: Slot) -> Lane:
    assert isinstance(slot, Lane)  # noqa: S101 (slots come back to the backend that lent them)
    return slot


def _tensors(kit: Toolkit, engine: Any) -> dict[str, TensorSpec]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {
        name: TensorSpec(
            name,
            tuple(int(d) for d in engine.get_tensor_shape(name)),
            str(engine.get_tensor_dtype(name)).rsplit(".", 1)[-1],
        )
        for name in names
    }


def _only_input(kit: Toolkit, engine: Any, tensors: dict[str, TensorSpec]) -> str:
    inputs = [name for name in tensors if engine.get_tensor_mode(name) == kit.trt.TensorIOMode.INPUT]
    if len(inputs) != 1:
        raise ConfigError(f"the engine has {len(inputs)} inputs: {', '.join(inputs)}", "only one is supported")
    return inputs[0]


def _dtype(kit: Toolkit, engine: Any, name: str) -> Any:
    kinds = {member(kit.trt.DataType, kind): dtype for kind, dtype in DTYPES.items()}
    kind = engine.get_tensor_dtype(name)
    if kind not in kinds:
        raise ConfigError(f"NumPy has no type for {kind} of {name!r}", "keep inputs and outputs in float32")
    return kinds[kind]
