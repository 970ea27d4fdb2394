"""ONNX Runtime: the CPU by default, any of its execution providers by option."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import onnxruntime
from msgspec import Meta, Struct

from edgeinfer.backends._session import VERSION, SessionSettings, open_session, specs_of
from edgeinfer.backends._trial import RefusedError, TrialLimits, attempt, usual_limits
from edgeinfer.backends._trial_child import Feed
from edgeinfer.backends._verdicts import Verdicts
from edgeinfer.config import strict
from edgeinfer.config.card import Model
from edgeinfer.cuda.status import error_from_text, status_in
from edgeinfer.errors import (
    ConfigError,
    InputError,
    OutOfMemoryError,
    UnavailableError,
    is_lack_of_memory,
)
from edgeinfer.guard.foreign_words import reason_in
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.models import onnxfile
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import AnyArray, Float32, Letterbox, Picture, Surface, TensorSpec

log = logging.getLogger(__name__)

MANY_CORES = 8
CPU = "onnxruntime-cpu"
NO_MEMORY = "stop what else runs, or give it more memory"
CPU_BATCH = 4
"""A CPU is no faster per picture in larger batches, and every picture waits for the whole batch."""


class Options(Struct, frozen=True, kw_only=True):
    """Execution providers in order of preference, and how the cores are shared out.

    `streams` batches run at once, each on `threads` threads; by default as many threads as there are cores, in one
    stream.
    `spin` lets threads that wait keep their cores; by default from eight cores on.
    `memory_mb` and `trial_s` bound what a network may take when it is tried in a process of its own, before it is
    loaded: by default 3 GiB and four times its files' size, at most half of the memory, and 60 seconds.
    """

    providers: Annotated[tuple[str, ...], Meta(min_length=1)] = ("cpu",)
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    streams: Annotated[int, Meta(ge=1, le=64)] = 1
    spin: bool | None = None
    provider_options: dict[str, dict[str, Any]] = {}
    memory_mb: Annotated[int, Meta(ge=16, le=999_999)] | None = None
    trial_s: Annotated[int, Meta(ge=1, le=3600)] | None = None


def open(model: Model, max_batch: int | None, options: Options) -> OnnxRuntime:  # noqa: A001 (the plugin interface)
    """Loads the model and runs it once, so that the first frame doesn't pay for that.

    `max_batch` None leaves the largest batch to the backend, up to the card's.

    Raises InputError for a file that is no ONNX model, ConfigError where it does not fit its card, UnavailableError
    where a provider is not there.
    """
    return OnnxRuntime(model, max_batch, options)


def thrifty(options: Options) -> Options:
    """Half of the cores at most, and none kept by a thread that waits: see `ThriftyBackendModule`."""
    threads = options.threads or max(1, _cores(options.streams) // 2)
    return msgspec.structs.replace(options, threads=threads, spin=bool(options.spin))


def try_out(model: Model, max_batch: int | None, options: Options, cancel: threading.Event) -> None:
    """Loads and runs the network once in a child with limits, unless it came with edgeinfer or has been tried before.

    For a device it is tried on the CPU with one picture; what only the device can run passes.
    Raises InputError where it takes more than it may or does not run, TemporaryError soon after `cancel`.
    """
    if model.vendored:
        return
    card = model.card.input
    session = _settings(options)
    on_cpu = _reported_name([name for name, _ in session.providers]) == CPU
    batch = (max_batch or _default_batch(CPU, model.card.max_batch)) if on_cpu else 1
    feed = Feed(name=card.name, batch=batch, height=card.height, width=card.width)
    limits = _limits(model, options)
    tried = (model.sha256, VERSION, session, feed, limits)
    verdicts = Verdicts()
    if not verdicts.known(*tried):
        try:
            attempt(model.path, session, feed, limits, cancel)
        except RefusedError as error:
            if on_cpu:
                raise
            log.debug("%s; it may be made for a device", error.message)
        verdicts.remember(*tried)


def raw(model: Model, options: Options) -> Callable[[AnyArray], object]:
    """`session.run` on a (1, 3, H, W) float32 array with nothing of ours around it, to measure against.

    Unless `spin` is set, its threads spin while they wait, as is ONNX Runtime's default.
    """
    try_out(model, 1, options, threading.Event())
    settings = _settings(msgspec.structs.replace(options, spin=options.spin is not False))
    session = open_session(model.path, settings)
    name = model.card.input.name
    return lambda tensor: session.run(None, {name: tensor})


def specs(path: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The inputs and outputs of an ONNX file, which is loaded in a child with limits. Raises InputError."""
    files = [mark.path for mark in onnxfile.identify(path).marks]
    report = attempt(path, _settings(Options()), None, usual_limits(files), threading.Event())
    return report.inputs, report.outputs


@dataclass(slots=True, kw_only=True)
class Filled(Slot):
    """A slot with its input, (N, 3, H, W) float32, N the largest batch."""

    input: Float32


def _filled(slot: Slot) -> Filled:
    assert isinstance(slot, Filled)  # noqa: S101 (slots come back to the backend that lent them)
    return slot


class OnnxRuntime:
    """See `Backend`. A small pool calls `session.run`, which gives the interpreter free while it computes."""

    def __init__(self, model: Model, max_batch: int | None, options: Options) -> None:
        self._session = open_session(model.path, _settings(options))
        if model.identity is not None and not onnxfile.unchanged(model.identity.marks):
            raise InputError(f"{model.path}: its files changed while it was loaded", "try again once they are complete")
        self._input = _check_input(model, specs_of(self._session.get_inputs()))
        self._fixed = self._input.shape[0] if self._input.shape[0] > 0 else None
        self.output_specs: Sequence[TensorSpec] = specs_of(self._session.get_outputs())
        self._output_names = [spec.name for spec in self.output_specs]
        self.name = _reported_name(self._session.get_providers())
        self.max_batch = self._fixed or max_batch or _default_batch(self.name, model.card.max_batch)
        self.versions = {"onnxruntime": VERSION}
        self._control = onnxruntime.RunOptions()
        self._preprocess = Preprocessor(model.card.input)
        self.lane_depth = 1 if self.name == CPU else self.max_batch
        # One slot more than streams: the next batch is prepared while the others run.
        self.slots = options.streams + 1
        self._free = [self._new_slot(model) for _ in range(self.slots)]
        threads = options.threads or _cores(options.streams)
        self.detail = f"batches up to {self.max_batch}, {options.streams} at once, {threads} threads each"
        self._in_flight: deque[tuple[Filled, Future[None]]] = deque()
        self._pool = ThreadPoolExecutor(options.streams, thread_name_prefix="onnxruntime")
        self._run(self._free[0])

    def acquire(self) -> Slot | None:
        """See `Backend.acquire`."""
        return self._free.pop() if self._free else None

    def prepare(self, wanted: Filter | None) -> None:
        """See `Backend.prepare`. Outputs lie in our own memory already: there is nothing to leave out."""

    def takes(self, surface: Surface) -> bool:
        """See `TakesSurfaces.takes`."""
        return not surface.on_device

    def load(self, slot: Slot, pictures: Sequence[Picture]) -> Sequence[Letterbox]:
        """See `Backend.load`."""
        slot.count = len(pictures)
        return [self._preprocess(picture, out) for picture, out in zip(pictures, _filled(slot).input, strict=False)]

    def submit(self, slot: Slot) -> None:
        """See `Backend.submit`."""
        filled = _filled(slot)
        self._in_flight.append((filled, self._pool.submit(self._run, filled)))

    def collect(self, timeout_s: float) -> Slot | None:
        """See `Backend.collect`."""
        if not self._in_flight:
            return None
        slot, future = self._in_flight[0]
        try:
            future.result(timeout_s)
        except FutureTimeoutError:
            return None
        except OutOfMemoryError:
            self._free.append(self._in_flight.popleft()[0])
            raise
        self._in_flight.popleft()
        return slot

    def release(self, slot: Slot) -> None:
        """See `Backend.release`."""
        slot.outputs = {}
        self._free.append(_filled(slot))

    def close(self) -> None:
        """See `Backend.close`. What runs is stopped at its next node: a network may hold a loop without an end."""
        self._control.terminate = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _new_slot(self, model: Model) -> Filled:
        card = model.card.input
        return Filled(input=np.zeros((self.max_batch, 3, card.height, card.width), np.float32), count=1)

    def _run(self, slot: Filled) -> None:
        started = time.perf_counter()
        try:
            batch = slot.input[: self._fixed or slot.count]
            arrays: Sequence[AnyArray] = self._session.run(self._output_names, {self._input.name: batch}, self._control)
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base
            text = f"ONNX Runtime failed on a batch of {slot.count}: {error}"
            if is_lack_of_memory(error) and status_in(reason_in(str(error))) is None:
                raise OutOfMemoryError(text, NO_MEMORY) from error
            raise error_from_text(text, reason_in(str(error))) from error
        slot.outputs = dict(zip(self._output_names, arrays, strict=True))
        slot.infer_ms = (time.perf_counter() - started) * 1e3


def _settings(options: Options) -> SessionSettings:
    threads = options.threads or _cores(options.streams)
    return SessionSettings(threads=threads, spin=_spin(options), providers=_providers(options))


def _limits(model: Model, options: Options) -> TrialLimits:
    files = [mark.path for mark in model.identity.marks] if model.identity else [model.path]
    usual = usual_limits(files)
    memory = usual.memory_bytes if options.memory_mb is None else options.memory_mb << 20
    return TrialLimits(memory, usual.seconds if options.trial_s is None else options.trial_s)


def _spin(options: Options) -> bool:
    """A thread that spins while it waits is quicker to go on, and takes a core from decoding and preprocessing."""
    return len(os.sched_getaffinity(0)) >= MANY_CORES if options.spin is None else options.spin


def _cores(streams: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // streams)


def _providers(options: Options) -> list[tuple[str, dict[str, Any]]]:
    available = {_short(name): name for name in onnxruntime.get_available_providers()}
    wanted = [_short(name) for name in options.providers]
    settings = {_short(name): table for name, table in options.provider_options.items()}
    for short in settings.keys() - set(wanted):
        raise ConfigError(f"backend.provider_options.{short}: not among the providers", strict.nearest(short, wanted))
    for short in wanted:
        if short not in available:
            raise UnavailableError(
                f"this ONNX Runtime has no execution provider {short!r}", strict.nearest(short, available)
            )
    return [(available[short], settings.get(short, {})) for short in wanted]


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()


def _reported_name(providers: Sequence[str]) -> str:
    """What really runs: the session leaves out providers that it could not start."""
    return f"onnxruntime-{_short(providers[0])}"


def _default_batch(name: str, card_limit: int) -> int:
    return min(card_limit, CPU_BATCH) if name == CPU else card_limit


def _check_input(model: Model, inputs: Sequence[TensorSpec]) -> TensorSpec:
    card = model.card.input
    found = {spec.name: spec for spec in inputs}
    if card.name not in found or len(inputs) != 1:
        raise ConfigError(
            f"{model.path}: its inputs are {', '.join(found)[:200]}; the card says {card.name!r}",
            "input.name in the card must be the network's only input",
        )
    spec = found[card.name]
    wanted = (-1, 3, card.height, card.width)
    fits = len(spec.shape) == 4 and all(d in (-1, w) for d, w in zip(spec.shape[1:], wanted[1:], strict=True))
    if not fits or spec.dtype != "tensor(float)":
        raise ConfigError(
            f"{model.path}: input {card.name!r} is {spec.dtype} {list(spec.shape)}; the card needs "
            f"float32 [N, 3, {card.height}, {card.width}]",
            "correct input.width and input.height in the card",
        )
    return spec
