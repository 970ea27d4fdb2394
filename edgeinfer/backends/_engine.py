"""A TensorRT engine out of its plan: what goes in and comes out, and contexts to run it in."""

from __future__ import annotations

import functools
import logging
from collections import deque
from typing import Any

from edgeinfer.backends._lane import BoundContext
from edgeinfer.config.card import InputCard
from edgeinfer.engine import diagnose, toolkit
from edgeinfer.engine.toolkit import DTYPES, Toolkit, make_logger, make_runtime, member
from edgeinfer.errors import ConfigError, FatalError
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
        context.set_input_shape(self.input, (self.max_batch, *self._shape))
        pairs = {name: Pair(cuda, _known_shape(context, name), self._dtypes[name]) for name in self._tensors}
        single = self._single(cuda) if self.has_single else None
        for name, pair in pairs.items():
            for bound in filter(None, (context, single)):
                bound.set_tensor_address(name, pair.device)
        return BoundContext(context, self.input, self._shape, pairs, self._capturable, single)

    @property
    def has_single(self) -> bool:
        """Whether it has a second profile, for single pictures, and may be given some."""
        if self.batches[0] > 1 or self._engine.num_optimization_profiles < 2:
            return False
        return int(self._engine.get_tensor_profile_shape(self.input, 1)[2][0]) == 1

    def _single(self, cuda: Cuda) -> Any:
        """A context on the second profile. Raises FatalError."""
        context, stream = self._small_context(), cuda.stream()
        if context is None:
            raise FatalError("TensorRT can't create an execution context", "backend.profiles: 1 takes less GPU memory")
        chosen = context.set_optimization_profile_async(1, stream)
        cuda("cudaStreamSynchronize", stream)
        cuda("cudaStreamDestroy", stream)
        if not chosen:
            raise FatalError("TensorRT can't use the profile for single pictures", "backend.profiles: 1")
        context.set_input_shape(self.input, (1, *self._shape))
        return context

    def _small_context(self) -> Any | None:
        """With memory for the profile that it gets, where this TensorRT can do that (10.0), else for the largest."""
        strategies = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        how = () if strategies is None else (strategies.ON_PROFILE_CHANGE,)
        return self._engine.create_execution_context(*how)

    def profile_of(self, batch: int) -> str:
        """The optimization profile that runs a batch, as MIN:OPT:MAX; empty for an engine of one shape."""
        if self._tensors[self.input].shape[0] > 0:
            return ""
        number = int(batch == 1 and self.has_single)
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
