"""A TensorRT engine out of its plan: what goes in and comes out, and contexts to run it in."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgeinfer.backends._lane import BoundContext
from edgeinfer.config.card import InputCard
from edgeinfer.engine import diagnose, toolkit
from edgeinfer.engine.options import format_shape
from edgeinfer.engine.toolkit import DTYPES, Toolkit, make_logger, make_runtime, member
from edgeinfer.errors import ConfigError, FatalError, OutOfMemoryError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.memory import Pair
from edgeinfer.types import TensorSpec

log = logging.getLogger(__name__)

ANOTHER_MODEL = "across different models of devices"


class LoadedEngine:
    """A deserialized engine. Raises PlanError, ConfigError or UnavailableError where it can't be used here.

    `max_batch` is the largest batch, at most the one asked for; `batches` are the sizes that are run, ascending.
    """

    def __init__(
        self,
        kit: Toolkit,
        plan: bytes,
        card: InputCard,
        max_batch: int,
        plugins: tuple[str, ...],
        dla_core: int | None = None,
    ) -> None:
        self._trt = kit.trt
        self._log: deque[str] = deque(maxlen=50)
        self._logger = make_logger(kit.trt, self._log, _heed)
        toolkit.load_plugins(kit, self._logger, plugins)
        self._runtime = make_runtime(kit, self._logger, dla_core)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise diagnose.explain(self._log, "loading the engine")
        self._tensors = _tensors(self._engine)
        self.input = _only_input(kit, self._engine, self._tensors, card)
        self._dtypes = {name: _dtype(kit, self._engine, name) for name in self._tensors}
        self._shape = (3, card.height, card.width)
        self._contexts = 0
        self._has_singles = False
        self._capturable = dla_core is None  # what a DLA does is no part of a CUDA graph
        fixed = self._tensors[self.input].shape[0]
        least, _, most = (int(shape[0]) for shape in self._engine.get_tensor_profile_shape(self.input, 0))
        self.batches = [fixed] if fixed > 0 else batch_sizes(max(least, min(max_batch, most)), least)
        self.max_batch = self.batches[-1]

    @property
    def outputs(self) -> list[TensorSpec]:
        """What comes out."""
        return [spec for name, spec in self._tensors.items() if name != self.input]

    @property
    def last_words(self) -> str:
        """TensorRT's latest line."""
        return self._log[-1] if self._log else "no reason"

    def context(self, cuda: Cuda) -> BoundContext | None:
        """A new execution context with buffers for the largest batch; None where this TensorRT gives no more."""
        context = self._engine.create_execution_context()
        if context is None and self._contexts and not self._capturable:
            return None  # a DLA core holds a limited number of parts
        if context is None:
            raise FatalError("TensorRT can't create an execution context", "is there enough GPU memory?")
        if context.active_optimization_profile < 0:
            return None  # TensorRT 8.5: a profile serves one context; later ones share it
        self._contexts += 1
        self._set_batch(context, self.max_batch)
        pairs = {name: Pair(cuda, _known_shape(context, name), self._dtypes[name]) for name in self._tensors}
        for name, pair in pairs.items():
            context.set_tensor_address(name, pair.device)
        return BoundContext(context, self.input, self._shape, pairs, self._capturable)

    def with_singles(self, cuda: Cuda, networks: Sequence[BoundContext]) -> list[BoundContext]:
        """The same with a context each on the second profile, for single pictures; empty where it takes none.

        They are a gain and no need: where one can't be had, all go without, and single pictures run as batches do.
        """
        if not self._takes_singles():
            return []
        try:
            found = [replace(network, single=self._single(cuda, network)) for network in networks]
        except (OutOfMemoryError, FatalError) as error:
            log.warning("%s; they run on the profile for batches", error.message)
            return []
        self._has_singles = bool(found)
        return found

    def _takes_singles(self) -> bool:
        """Whether it has a second profile that takes single pictures, and may be given some."""
        if self.batches[0] > 1 or self._engine.num_optimization_profiles < 2:
            return False
        least, _, most = self._engine.get_tensor_profile_shape(self.input, 1)
        wanted = (1, *self._shape)
        return all(low <= size <= high for low, size, high in zip(least, wanted, most, strict=True))

    def _single(self, cuda: Cuda, network: BoundContext) -> Any:
        """A context on the second profile, bound to the buffers of `network`. Raises OutOfMemoryError, FatalError."""
        context = self._small_context()
        if context is None:
            raise FatalError("TensorRT can't create an execution context for single pictures")
        stream = cuda.stream()
        try:
            chosen = context.set_optimization_profile_async(1, stream)
            cuda("cudaStreamSynchronize", stream)
        finally:
            cuda("cudaStreamDestroy", stream)
        if not chosen:
            raise FatalError("TensorRT can't use the profile for single pictures")
        self._set_batch(context, 1)
        for name, pair in network.pairs.items():
            context.set_tensor_address(name, pair.device)
        return context

    def _set_batch(self, context: Any, batch: int) -> None:
        shape = (batch, *self._shape)
        if not context.set_input_shape(self.input, shape):
            raise FatalError(f"TensorRT takes no input of {format_shape(shape)}: {self.last_words}")

    def _small_context(self) -> Any | None:
        """With memory for the profile that it gets, where this TensorRT can do that (10.0), else for the largest."""
        strategies = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        how = () if strategies is None else (strategies.ON_PROFILE_CHANGE,)
        return self._engine.create_execution_context(*how)

    def profile_of(self, batch: int) -> str:
        """The optimization profile that runs a batch, as MIN:OPT:MAX; empty for an engine of one shape."""
        if self._tensors[self.input].shape[0] > 0:
            return ""
        number = int(batch == 1 and self._has_singles)
        shapes = self._engine.get_tensor_profile_shape(self.input, number)
        return f"profile {':'.join(str(shape[0]) for shape in shapes)}"

    def close(self) -> None:
        """Frees the engine. Its contexts must be gone; it goes before its runtime."""
        self._engine = None
        self._runtime = None


def _heed(line: str) -> None:
    """TensorRT warns of engines from another model of GPU, on a Jetson of its own ones too: once is enough."""
    if ANOTHER_MODEL in line:
        _tell_of_another_model()


@functools.cache
def _tell_of_another_model() -> None:
    log.info("TensorRT takes the GPU for another model than the engine was built on; on a Jetson that is often untrue")


def batch_sizes(largest: int, least: int = 1) -> list[int]:
    """Powers of two from `least` on, and the largest batch: a batch is filled up to the next one, so that a few graphs
    serve all.
    """
    sizes = [1 << power for power in range(largest.bit_length()) if least <= 1 << power < largest]
    return [*sizes, largest]


def _known_shape(context: Any, name: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in context.get_tensor_shape(name))
    if min(shape, default=1) < 0:
        raise ConfigError(
            f"the shape of output {name!r} depends on the data, which this backend can't follow",
            "--backend onnxruntime",
        )
    return shape


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
