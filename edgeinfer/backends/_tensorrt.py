"""A TensorRT engine at work: an execution context, a stream and buffers per slot, all made once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeinfer.backends._context import (
    BoundContext,
    ContextSlot,
    DeviceLoader,
    FilteringReader,
    HostLoader,
    InputLoader,
    NotStartedError,
    WholeReader,
    filter_fits,
)
from edgeinfer.config.card import InputCard
from edgeinfer.engine import toolkit
from edgeinfer.engine.build import diagnose
from edgeinfer.engine.build.construct import make_logger
from edgeinfer.engine.build.runner import DTYPES
from edgeinfer.engine.store.probation import Probation
from edgeinfer.engine.toolkit import Toolkit, member
from edgeinfer.errors import ConfigError, FatalError, OutOfMemoryError
from edgeinfer.gpu.cuda import DEADLINE_S, Cuda, sharpen_timer
from edgeinfer.gpu.kernel_launch import load_kernels
from edgeinfer.gpu.memory import Pair
from edgeinfer.gpu.pins import Pins
from edgeinfer.gpu.status import error_from_text
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.types import Image, Letterbox, TensorSpec


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is run. `label` ends the backend's name."""

    max_batch: int
    streams: int
    spin: bool
    graphs: bool
    gpu_preprocess: bool
    plugins: tuple[str, ...]
    label: str


class TensorRt:
    """See `Backend`. Used by one thread; CUDA calls release the interpreter."""

    def __init__(
        self, kit: Toolkit, plan: bytes, card: InputCard, settings: Settings, probation: Probation | None
    ) -> None:
        self._settings, self._card, self._probation = settings, card, probation
        self.engine_key = probation.key if probation else ""
        self._cuda = Cuda()
        self._log: deque[str] = deque(maxlen=50)
        self._logger = make_logger(kit.trt, self._log, lambda _: None)
        toolkit.load_plugins(kit, self._logger, settings.plugins)
        self._runtime = kit.trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise diagnose.explain(self._log, "loading the engine")
        self._tensors = _tensors(self._engine)
        self._input = _only_input(kit, self._engine, self._tensors, card)
        self._shape = (3, card.height, card.width)
        fixed = self._tensors[self._input].shape[0]
        largest = self._engine.get_tensor_profile_shape(self._input, 0)[2][0]
        self.max_batch = fixed if fixed > 0 else min(settings.max_batch, largest)
        self._sizes = [fixed] if fixed > 0 else batch_sizes(self.max_batch)
        self.lane_depth = self.max_batch
        self.output_specs: Sequence[TensorSpec] = [spec for name, spec in self._tensors.items() if name != self._input]
        dtypes = {name: _dtype(kit, self._engine, name) for name in self._tensors}
        mapped = bool(self._cuda.attribute("Integrated"))
        self._pins = Pins(self._cuda, mapped)
        self._kernels = load_kernels(self._cuda) if settings.gpu_preprocess else None
        self._lanes = self._make_lanes(settings.streams + 1, dtypes, mapped)
        self._free = list(self._lanes)
        self.slots = len(self._lanes)
        self._wanted: Filter | None = None
        self._in_flight: deque[ContextSlot] = deque()
        self._sharp = 0
        self.name = f"{kit.flavour.replace('_', '-')}-{settings.label}"
        self.versions = {kit.flavour: ".".join(map(str, kit.version))}
        self.detail = ""

    def prepare(self, wanted: Filter | None) -> None:
        """See `Backend.prepare`. Runs every context, and captures the graphs: now it is known what they hold."""
        if self._wanted is not None and wanted is not None and self._wanted.reads == wanted.reads:
            self._set_threshold(wanted)
            return
        self._wanted, filtering = wanted, False
        for lane in self._free:
            filtering = self._filter(lane, wanted)
            for size in self._sizes:
                lane.run(size)  # the first run does lazy work, which no frame should wait for
                lane.finish()
        if wanted is not None:
            self._set_threshold(wanted)
        captured = self._settings.graphs and all(lane.capture(size) for lane in self._free for size in self._sizes)
        if not captured:
            for lane in self._free:
                lane.forget_graphs()
        self.detail = ", ".join(
            [
                f"{self.slots} execution contexts",
                f"batches up to {self.max_batch}",
                "CUDA graphs" if captured else "no CUDA graphs",
                f"preprocessing on the {'GPU' if self._kernels else 'CPU'}",
                f"candidates chosen on the {'GPU' if filtering else 'CPU'}",
            ]
        )

    def acquire(self) -> Slot | None:
        """See `Backend.acquire`."""
        return self._free.pop() if self._free else None

    def load(self, slot: Slot, images: Sequence[Image]) -> Sequence[Letterbox]:
        """See `Backend.load`."""
        lane = _lane(slot)
        lane.count = len(images)
        return lane.loader.load(images, lane.stream)

    def submit(self, slot: Slot) -> None:
        """See `Backend.submit`."""
        lane = _lane(slot)
        try:
            lane.run(next(size for size in self._sizes if size >= lane.count))
        except NotStartedError as error:
            raise error_from_text(f"{error.message}: {self._log[-1] if self._log else 'no reason'}") from None
        lane.submitted_s = time.monotonic()
        self._in_flight.append(lane)

    def collect(self, timeout_s: float) -> Slot | None:
        """See `Backend.collect`. Raises FatalError for a batch that has been running for ten seconds."""
        if not self._in_flight:
            return None
        if threading.get_ident() != self._sharp:
            sharpen_timer()
            self._sharp = threading.get_ident()
        lane = self._in_flight[0]
        try:
            if not self._finished(lane, timeout_s):
                return None
            lane.outputs, lane.candidates = lane.reader.read(lane.count)
        except OutOfMemoryError:
            self.release(self._in_flight.popleft())
            raise
        self._in_flight.popleft()
        lane.infer_ms = (time.monotonic() - lane.submitted_s) * 1e3
        if self._probation is not None:
            self._probation.tick()
        return lane

    def release(self, slot: Slot) -> None:
        """See `Backend.release`."""
        slot.outputs, slot.candidates = {}, None
        self._free.append(_lane(slot))

    def close(self) -> None:
        """See `Backend.close`. Contexts go before the engine, the engine before its runtime."""
        while self._in_flight:
            with suppress(OutOfMemoryError):  # a result that nobody waits for
                slot = self.collect(DEADLINE_S)
                if slot is not None:
                    self.release(slot)
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._free.clear()
        if self._kernels is not None:
            self._kernels.close()
        self._engine = None
        self._runtime = None
        if self._probation is not None:
            self._probation.pass_()

    def blame(self) -> None:
        """The engine has failed, or the process is about to end because of it. From any thread; touches no CUDA."""
        if self._probation is not None:
            self._probation.blame()

    def _finished(self, lane: ContextSlot, timeout_s: float) -> bool:
        if lane.wait(timeout_s, self._settings.spin):
            return True
        if time.monotonic() - lane.submitted_s > DEADLINE_S:
            raise FatalError(f"the GPU has not finished a batch within {DEADLINE_S:.0f} s", "see dmesg, then restart")
        return False

    def _make_lanes(self, wanted: int, dtypes: dict[str, Any], mapped: bool) -> list[ContextSlot]:
        lanes: list[ContextSlot] = []
        for _ in range(wanted):
            context = self._engine.create_execution_context()
            if context is None:
                raise FatalError("TensorRT can't create an execution context", "is there enough GPU memory?")
            if context.active_optimization_profile < 0:
                break  # TensorRT 8.5: a profile serves one context; later ones share it
            pairs = {name: Pair(self._cuda, self._largest(context, name), dtypes[name]) for name in self._tensors}
            for name, pair in pairs.items():
                context.set_tensor_address(name, pair.device)
            network = BoundContext(context, self._input, self._shape, pairs)
            lanes.append(ContextSlot(self._cuda, network, self._loader(pairs[self._input], mapped)))
        return lanes

    def _loader(self, pair: Pair, mapped: bool) -> InputLoader:
        """The GPU's kernel where there is one for the input's type, else the CPU."""
        if self._kernels is None or pair.dtype not in (np.float32, np.float16):
            return HostLoader(self._card, pair)
        loader = DeviceLoader(self._cuda, self._card, self._pins, pair.shape[0], mapped)
        loader.kernel = self._kernels.letterbox(self._card, pair.dtype == np.float16, loader.device, pair.device)
        return loader

    def _filter(self, lane: ContextSlot, wanted: Filter | None) -> bool:
        """Gives the lane what reads its outputs. Returns whether it is the GPU that chooses candidates."""
        lane.forget_graphs()
        lane.reader.close()
        outputs, loader = lane.network.outputs, lane.loader
        if wanted is None or not isinstance(loader, DeviceLoader) or not filter_fits(wanted, outputs):
            lane.reader = WholeReader(outputs)
            return False
        assert self._kernels is not None  # noqa: S101 (a device loader has them)
        boxes, scores = outputs[wanted.boxes], outputs[wanted.scores]
        lane.reader = FilteringReader(self._cuda, self._kernels, loader.device, boxes, scores, lane.stream)
        return True

    def _set_threshold(self, wanted: Filter) -> None:
        """From the next batch on."""
        for lane in self._lanes:
            if isinstance(lane.loader, DeviceLoader):
                lane.loader.threshold = wanted.threshold

    def _largest(self, context: Any, name: str) -> tuple[int, ...]:
        """The shape of a tensor at the largest batch."""
        context.set_input_shape(self._input, (self.max_batch, *self._shape))
        shape = tuple(int(size) for size in context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise ConfigError(
                f"the shape of output {name!r} depends on the data, which this backend can't follow",
                "--backend onnxruntime",
            )
        return shape


def batch_sizes(largest: int) -> list[int]:
    """Powers of two and the largest batch: a batch is filled up to the next one, so that a few graphs serve all."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]


def _lane(slot: Slot) -> ContextSlot:
    assert isinstance(slot, ContextSlot)  # noqa: S101 (slots come back to the backend that lent them)
    return slot


def _tensors(engine: Any) -> dict[str, TensorSpec]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {
        name: TensorSpec(
            name,
            tuple(int(d) for d in engine.get_tensor_shape(name)),
            str(engine.get_tensor_dtype(name)).rsplit(".", 1)[-1],
        )
        for name in names
    }


def _only_input(kit: Toolkit, engine: Any, tensors: dict[str, TensorSpec], card: InputCard) -> str:
    inputs = [name for name in tensors if engine.get_tensor_mode(name) == kit.trt.TensorIOMode.INPUT]
    if len(inputs) != 1:
        raise ConfigError(f"the engine has {len(inputs)} inputs: {', '.join(inputs)}", "only one is supported")
    shape = tensors[inputs[0]].shape
    if len(shape) != 4 or any(d not in (-1, w) for d, w in zip(shape[1:], (3, card.height, card.width), strict=True)):
        raise ConfigError(
            f"the engine's input {inputs[0]!r} is {list(shape)}; the card needs [N, 3, {card.height}, {card.width}]",
            "correct input.width and input.height in the card",
        )
    return inputs[0]


def _dtype(kit: Toolkit, engine: Any, name: str) -> Any:
    kinds = {member(kit.trt.DataType, kind): dtype for kind, dtype in DTYPES.items()}
    kind = engine.get_tensor_dtype(name)
    if kind not in kinds:
        raise ConfigError(f"NumPy has no type for {kind} of {name!r}", "keep inputs and outputs in float32")
    return kinds[kind]
