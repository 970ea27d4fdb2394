"""TensorRT as its versions really are, as far as names go: modules made from the member lists in `api/`.

A member that a version lacks does not exist here either, neither to read nor to set. What a build does is simulated;
what is not simulated raises when it is called.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeinfer.engine.store.plan import parse_header
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.models.onnxfile import read_model

from .plans import make_plan

API = Path(__file__).parent / "api"
VERSIONS = tuple(sorted(path.stem for path in API.glob("*.json")))
BUILDS = {"8.5.3": (8, 5, 3, 1), "8.6.0": (8, 6, 0, 12), "10.3.0": (10, 3, 0, 30), "10.7.0": (10, 7, 0, 23)}


def fake_toolkit(version: str) -> Toolkit:
    """A TensorRT of this version. `toolkit.trt.world` holds what happened, and what should."""
    flavour = "tensorrt_rtx" if version.startswith("rtx") else "tensorrt"
    api = json.loads((API / f"{version}.json").read_text())
    major, minor, patch, build = BUILDS.get(version) or map(int, api["version"].split("."))
    numbers = (major, minor, patch, build)
    module = SimpleNamespace()
    fill(module, api, World(version=numbers, magic=b"vtrt" if flavour == "tensorrt_rtx" else b"ftrt"))
    return Toolkit(module, flavour, numbers)


def fill(module: Any, api: dict[str, Any], world: World) -> None:
    """Makes a module a TensorRT with these members."""
    module.world, module.__version__ = world, api["version"]
    for name, members in api["enums"].items():
        setattr(module, name, plain_enum(name, members))
    for name, members in api["classes"].items():
        setattr(module, name, make_class(name, set(members), module))
    module.ILogger.Severity = plain_enum(
        "Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}
    )
    for name in api["functions"]:
        setattr(module, name, FUNCTIONS.get(name, unsimulated(name)))


class Plain:
    """Like TensorRT's enums: int() works, shifting by one does not."""

    def __int__(self) -> int:
        return int(self.value)  # type: ignore[attr-defined]  # mixed into an enum


def plain_enum(name: str, members: dict[str, int]) -> Any:
    """An enum of TensorRT's kind."""
    return enum.Enum(name, members, type=Plain)


class World:
    """What a test sets, and what it looks at afterwards."""

    def __init__(self, version: tuple[int, ...], magic: bytes) -> None:
        self.version, self.magic = version, magic
        self.dla_cores = 0
        self.off_dla: set[int] = set()  # numbers of layers that the DLA does not take
        self.tells_parts = "log"  # where a build tells what went to the DLA: log, inspector or nowhere
        self.refused: dict[int, str] = {}  # node number → the parser's reason
        self.build_error = ""  # logged, and no plan comes out
        self.gain = 2.0  # what the engine multiplies by
        self.network: Any = None
        self.config: Any = None
        self.flags: set[str] = set()
        self.pools: dict[str, int] = {}
        self.previews: set[str] = set()
        self.calibrated: list[Any] = []
        self.memory: dict[int, bytes] = {}
        self.cuda: Any = None  # a simulated GPU; without one, memory is the dictionary above
        self.contexts = 0
        self.refusals: list[str] = []  # batches that are not started, with the line in the log
        self.logger: Any = None
        self.compute: Callable[[Any], Callable[[], object]] = echo  # of a context: what its engine does on the GPU
        self.describe: Callable[[Any, Any], dict[str, Any]] = describe  # of network and config: what a plan holds
        self.greet: Callable[[Any, Any], None] = lambda module, logger: None  # when a builder or runtime is made


def make_class(name: str, members: set[str], module: Any) -> type:
    """A class with exactly these members: simulated, or plain attributes, or calls that raise."""
    simulated = {key: value for key, value in BEHAVIOUR.get(name, {}).items() if key in members or key.startswith("_")}
    rest = {key: DEFAULTS.get(key, unsimulated(f"{name}.{key}")) for key in members - simulated.keys()}

    def set_known(self: object, key: str, value: object) -> None:
        if key not in members and not key.startswith("_"):
            raise AttributeError(f"{name} of this TensorRT has no attribute {key!r}")
        object.__setattr__(self, key, value)

    own = {"__init__": lambda self, *_: None, **rest, **simulated, "trt": module}
    if name not in {"ILogger", "IProgressMonitor"} and "Calibrator" not in name:  # those are subclassed in Python
        own["__setattr__"] = set_known
    return type(name, (), own)


def unsimulated(name: str) -> Callable[..., Any]:
    """Exists, but must not be needed."""

    def call(*_: object, **__: object) -> Any:
        raise NotImplementedError(name)

    return call


DEFAULTS: dict[str, Any] = {
    "builder_optimization_level": 3,
    "max_aux_streams": -1,
    "avg_timing_iterations": 1,
    "profiling_verbosity": None,
    "hardware_compatibility_level": None,
    "default_device_type": None,
    "DLA_core": -1,
    "progress_monitor": None,
    "int8_calibrator": None,
    "precision": None,
    "allowed_formats": 0,
    "dtype": None,
}


def made(cls: Any, **values: Any) -> Any:
    """An instance with private values."""
    thing = cls.__new__(cls)
    for key, value in values.items():
        object.__setattr__(thing, key, value)
    return thing


def log(module: Any, logger: Any, severity: str, text: str) -> None:
    logger.log(module.ILogger.Severity[severity], text)


class Builder:
    def __init__(self: Any, logger: Any) -> None:
        self._logger = logger
        self.trt.world.greet(self.trt, logger)

    num_DLA_cores = property(lambda self: self.trt.world.dla_cores)  # noqa: N815

    def create_network(self: Any, flags: int = 0) -> Any:
        kinds = self.trt.NetworkDefinitionCreationFlag
        names = {kind.name for kind in kinds if flags >> int(kind) & 1}
        assert flags < 1 << len(kinds), "a flag that this version does not know"
        self.trt.world.network = made(
            self.trt.INetworkDefinition, _flags=names, _inputs=[], _outputs=[], _layers=[], _model=None
        )
        return self.trt.world.network

    def create_builder_config(self: Any) -> Any:
        self.trt.world.config = made(self.trt.IBuilderConfig, _profiles=[], _timing=None, _calibration_profile=None)
        return self.trt.world.config

    def create_optimization_profile(self: Any) -> Any:
        return made(self.trt.IOptimizationProfile, _shapes={})

    def build_serialized_network(self: Any, network: Any, config: Any) -> bytes | None:
        world = self.trt.world
        problem = world.build_error or find_problem(network, config, world)
        if problem:
            log(self.trt, self._logger, "ERROR", problem)
            return None
        if getattr(config, "int8_calibrator", None) is not None and "INT8" in world.flags:
            run_calibrator(config.int8_calibrator, network, world)
        if getattr(config, "progress_monitor", None) is not None:
            run_monitor(config.progress_monitor)
        told = {**world.describe(network, config), **dla_parts(network, config)}
        for place in told.get("parts", ()) if world.tells_parts == "log" else ():
            log(self.trt, self._logger, "VERBOSE", f"[{place}Layer] {{ForeignNode[a...b]}}")
        return make_plan(world.version, json.dumps(told).encode(), world.magic)


def find_problem(network: Any, config: Any, world: World) -> str:
    """The mistakes that TensorRT itself refuses."""
    if "STRONGLY_TYPED" in network._flags and world.flags & {"FP16", "INT8"}:
        return "precision flags in a strongly typed network"
    free = {name for name, shape, _ in network._inputs if -1 in shape}
    if free and not any(free <= profile._shapes.keys() for profile in config._profiles):
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    if getattr(config.default_device_type, "name", "") == "DLA" and (
        problem := find_dla_problem(network, config, world)
    ):
        return problem
    if "INT8" in world.flags and free and not network._model.quantized and config._calibration_profile is None:
        return "Calibration profile is missing"
    return ""


def find_dla_problem(network: Any, config: Any, world: World) -> str:
    """What is wrong with a network for a DLA."""
    if any(-1 in shape for _, shape, _ in network._inputs):
        return "Dynamic shape is not supported on DLA"
    by_flag = "FP16" in config.trt.BuilderFlag.__members__
    if by_flag and not world.flags & {"FP16", "INT8"}:
        return "DLA needs FP16 or INT8"
    return "DLA takes no strongly typed network" if by_flag and "STRONGLY_TYPED" in network._flags else ""


def describe(network: Any, config: Any) -> dict[str, Any]:
    return {"inputs": network._inputs, "outputs": network._outputs}


def dla_parts(network: Any, config: Any) -> dict[str, Any]:
    """Runs of layers that the DLA takes are one part each."""
    if getattr(config.default_device_type, "name", "") != "DLA":
        return {}
    places = ["Dla" if config.can_run_on_DLA(layer) else "Gpu" for layer in network._layers]
    return {"parts": [place for place, _ in itertools.groupby(places)], "core": config.DLA_core}


def run_calibrator(calibrator: Any, network: Any, world: World) -> None:
    if calibrator.read_calibration_cache() is not None:
        return
    names = [name for name, _, _ in network._inputs]
    while (addresses := calibrator.get_batch(names)) is not None:
        world.calibrated.append([world.memory[address] for address in addresses])
    calibrator.write_calibration_cache(memoryview(b"ranges"))


def run_monitor(monitor: Any) -> None:
    monitor.phase_start("Building", None, 2)
    monitor.phase_start("Timing", "Building", 2)
    for step in range(2):
        assert monitor.step_complete("Timing", step)
    monitor.phase_finish("Timing")
    for step in range(2):
        assert monitor.step_complete("Building", step)
    monitor.phase_finish("Building")


class Network:
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    num_layers = property(lambda self: len(self._layers))

    def get_input(self: Any, index: int) -> Any:
        return self._tensors[index]

    def get_output(self: Any, index: int) -> Any:
        return self._tensors[len(self._inputs) + index]

    def get_layer(self: Any, index: int) -> Any:
        return self._layers[index]


class Config:
    def set_flag(self: Any, flag: Any) -> None:
        assert isinstance(flag, self.trt.BuilderFlag)
        self.trt.world.flags.add(flag.name)

    def clear_flag(self: Any, flag: Any) -> None:
        assert isinstance(flag, self.trt.BuilderFlag)
        self.trt.world.flags.add(f"-{flag.name}")

    def can_run_on_DLA(self: Any, layer: Any) -> bool:  # noqa: N802
        assert not any(-1 in shape for _, shape, _ in self.trt.world.network._inputs), "not known for free shapes"
        return self.trt.world.network._layers.index(layer) not in self.trt.world.off_dla

    def set_memory_pool_limit(self: Any, pool: Any, size: int) -> None:
        self.trt.world.pools[pool.name] = size

    def set_preview_feature(self: Any, feature: Any, on: bool) -> None:
        assert on
        self.trt.world.previews.add(feature.name)

    def set_tactic_sources(self: Any, mask: int) -> bool:
        self._tactics = mask
        return True

    def add_optimization_profile(self: Any, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self: Any, profile: Any) -> bool:
        self._calibration_profile = profile
        return True

    def create_timing_cache(self: Any, blob: bytes) -> Any:
        return made(self.trt.ITimingCache, _blob=blob)

    def set_timing_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        fits = not cache._blob or cache._blob.startswith(b"timed") or ignore_mismatch
        self._timing = cache if fits else None
        return bool(fits)

    def get_timing_cache(self: Any) -> Any:
        return self._timing


class Parser:
    def __init__(self: Any, network: Any, logger: Any) -> None:
        self._network = network
        self._found = list[Any]()

    num_errors = property(lambda self: len(self._found))
    num_subgraphs = property(lambda self: len(self._parts))

    def parse_from_file(self: Any, path: str) -> bool:
        model, module = read_model(Path(path)), self.trt
        network = self._network
        if "EXPLICIT_BATCH" in module.NetworkDefinitionCreationFlag.__members__ and module.world.version[0] < 10:
            assert "EXPLICIT_BATCH" in network._flags, "8.x wants explicit batch"
        network._model = model
        network._inputs = [[t.name, list(t.shape), t.dtype] for t in model.inputs]
        network._outputs = [[t.name, list(t.shape), t.dtype] for t in model.outputs]
        described = [*network._inputs, *network._outputs]
        network._tensors = [made(module.ITensor, name=own[0], _described=own) for own in described]
        network._layers = [made(module.ILayer, name=node.name) for node in model.nodes]
        refused = sorted(module.world.refused.items())
        everything = "node_name" in dir(module.ParserError)
        self._found = [parser_error(module, model, *item) for item in (refused if everything else refused[:1])]
        return not refused

    def get_error(self: Any, index: int) -> Any:
        return self._found[index]

    def supports_model(self: Any, data: bytes, path: str) -> tuple[bool, list[tuple[list[int], bool]]]:
        parts = supported_parts(self.trt.world, Path(path))
        return not self.trt.world.refused, [(part, False) for part in parts]

    def supports_model_v2(self: Any, data: bytes, path: str) -> bool:
        self._parts = supported_parts(self.trt.world, Path(path))
        return not self.trt.world.refused

    def get_subgraph_nodes(self: Any, index: int) -> list[int]:
        return list(self._parts[index])


def supported_parts(world: World, path: Path) -> list[list[int]]:
    taken = [index for index in range(len(read_model(path).nodes)) if index not in world.refused]
    return [taken[: len(taken) // 2], taken[len(taken) // 2 :]]


def parser_error(module: Any, model: Any, index: int, reason: str) -> Any:
    node = model.nodes[index]
    return made(module.ParserError, _index=index, _reason=reason, _node=node)


ERROR = {
    "node": lambda self: self._index,
    "desc": lambda self: self._reason,
    "code": lambda self: self.trt.ErrorCode.UNSUPPORTED_NODE,
    "node_name": lambda self: self._node.name,
    "node_operator": lambda self: self._node.operator,
}


class Runtime:
    def __init__(self: Any, logger: Any) -> None:
        self._logger = logger
        self.trt.world.greet(self.trt, logger)

    def deserialize_cuda_engine(self: Any, plan: Any) -> Any:
        import io  # noqa: PLC0415

        data, world = bytes(plan), self.trt.world
        world.logger = self._logger
        header = parse_header(io.BytesIO(data), len(data), "plan")
        if header.version != world.version:
            log(self.trt, self._logger, "ERROR", "engine plan file is not compatible with this version of TensorRT")
            return None
        told = json.loads(data[36:])
        if self.DLA_core != told.get("core", -1):
            log(self.trt, self._logger, "ERROR", f"the plan wants DLA core {told.get('core')}, not {self.DLA_core}")
            return None
        return made(self.trt.ICudaEngine, _io=told)

    num_DLA_cores = property(lambda self: self.trt.world.dla_cores)  # noqa: N815


class Inspector:
    def get_layer_information(self: Any, index: int, kind: Any) -> str:
        assert kind.name == "JSON"
        kinds = {"Dla": "DLA", "Gpu": "CaskConvolution"}
        if self.trt.world.config.profiling_verbosity is not self.trt.ProfilingVerbosity.DETAILED:
            return '"conv"'
        return json.dumps({"Name": "a", "LayerType": kinds[self._parts[index]]})


class Engine:
    num_layers = property(lambda self: len(self._io.get("parts", ())))

    def create_engine_inspector(self: Any) -> Any:
        tells = self.trt.world.tells_parts == "inspector"
        return made(self.trt.EngineInspector, _parts=self._io["parts"]) if tells else Silent()

    num_io_tensors = property(lambda self: len(self._io["inputs"]) + len(self._io["outputs"]))

    def _all(self: Any) -> list[Any]:
        return [*self._io["inputs"], *self._io["outputs"]]

    def get_tensor_name(self: Any, index: int) -> str:
        return str(self._all()[index][0])

    def get_tensor_mode(self: Any, name: str) -> Any:
        inputs = {item[0] for item in self._io["inputs"]}
        return self.trt.TensorIOMode.INPUT if name in inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_location(self: Any, name: str) -> Any:
        return self.trt.TensorLocation.DEVICE

    def get_tensor_dtype(self: Any, name: str) -> Any:
        kinds = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int8": "INT8"}
        return self.trt.DataType[kinds[next(item[2] for item in self._all() if item[0] == name)]]

    def get_tensor_shape(self: Any, name: str) -> tuple[int, ...]:
        return next(tuple(item[1]) for item in self._all() if item[0] == name)

    def get_tensor_profile_shape(self: Any, name: str, profile: int) -> list[tuple[int, ...]]:
        if profile == 1:
            single = self._io["single"]
            return single if isinstance(single, list) else [(1, *self.get_tensor_shape(name)[1:])] * 3
        high = self._io["largest"]
        low = usual = self._io.get("least", 1)
        return [(batch, *self.get_tensor_shape(name)[1:]) for batch in (low, usual, high)]

    num_optimization_profiles = property(lambda self: 1 + ("single" in self._io))

    def create_execution_context(self: Any, strategy: Any = None) -> Any:
        number = self.trt.world.contexts = self.trt.world.contexts + 1
        if number > self._io.get("room", number):
            return None
        most = self._io.get("contexts", number)
        profile = 0 if number <= most else -1
        return made(self.trt.IExecutionContext, _shapes={}, _addresses={}, _io=self._io, _profile=profile)


class Silent:
    def get_layer_information(self, index: int, kind: Any) -> str:
        return "null"


class Context:
    def set_input_shape(self: Any, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self: Any, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    active_optimization_profile = property(lambda self: self._profile)

    def set_optimization_profile_async(self: Any, profile: int, stream: int) -> bool:
        self._profile = profile
        self._shapes.clear()
        return not self._io.get("stubborn")

    def get_tensor_shape(self: Any, name: str) -> tuple[int, ...]:
        given = tuple(self._shapes[self._io["inputs"][0][0]])
        if self.trt.world.cuda is None or name == self._io["inputs"][0][0]:
            return given
        own = next(item[1] for item in self._io["outputs"] if item[0] == name)
        return (given[0] if own[0] < 0 else own[0], *own[1:])

    def execute_async_v3(self: Any, stream: int) -> bool:
        world = self.trt.world
        if world.refusals:
            log(self.trt, world.logger, "ERROR", world.refusals.pop(0))
            return False
        rows = self._shapes[self._io["inputs"][0][0]][0]
        if (
            (rows > 1 and self._profile == 1)
            or rows < self._io.get("least", 1)
            or (world.cuda is not None and "core" in self._io and world.cuda.capturing)
        ):
            log(self.trt, world.logger, "ERROR", "a shape outside the profile, or a DLA in a capture")
            return False
        if world.cuda is not None:
            world.cuda.enqueue(stream, world.compute(self))
            return True
        memory, (source, *_), (target, *_) = self.trt.world.memory, self._io["inputs"][0], self._io["outputs"][0]
        values = np.frombuffer(memory[self._addresses[source]], np.float32)
        memory[self._addresses[target]] = (values * np.float32(self.trt.world.gain)).tobytes()
        return True


def echo(context: Any) -> Callable[[], None]:
    """Copies the input of the shape that is set now into every output, as they lie in memory."""
    source, _, kind = context._io["inputs"][0]
    size = int(np.prod(context._shapes[source])) * np.dtype(kind).itemsize
    targets = [context._addresses[item[0]] for item in context._io["outputs"]]

    def step() -> None:
        for target in targets:
            ctypes.memmove(target, context._addresses[source], size)

    return step


def set_shape(tensor: Any, shape: tuple[int, ...]) -> None:
    """A network input's; outputs follow, by their first dimension."""
    tensor._described[1][:] = shape
    for output in tensor.trt.world.network._outputs:
        output[1][0] = shape[0] if output[1][0] < 0 else output[1][0]


def members(cls: type) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(cls).items()
        if key not in {"__dict__", "__weakref__", "__module__", "__doc__"}
    }


BEHAVIOUR: dict[str, dict[str, Any]] = {
    "Builder": members(Builder),
    "INetworkDefinition": members(Network),
    "IBuilderConfig": members(Config),
    "OnnxParser": members(Parser),
    "ParserError": ERROR,
    "Runtime": members(Runtime),
    "ICudaEngine": members(Engine),
    "EngineInspector": members(Inspector),
    "ITensor": {"shape": property(lambda self: tuple(self._described[1]), set_shape)},
    "IExecutionContext": members(Context),
    "IOptimizationProfile": {"set_shape": lambda self, name, *shapes: self._shapes.update({name: shapes})},
    "ITimingCache": {"serialize": lambda self: b"timed" + self._blob},
}
FUNCTIONS: dict[str, Any] = {"init_libnvinfer_plugins": lambda logger, namespace: True}


class FakeDevice:
    """Device memory in a dictionary."""

    stream = 7

    def __init__(self, memory: dict[int, bytes]) -> None:
        self._memory, self._names = memory, dict[str, int]()

    def buffer(self, name: str, size: int) -> int:
        return self._names.setdefault(name, 4096 + len(self._names))

    def upload(self, name: str, array: Any) -> int:
        address = self.buffer(name, array.nbytes)
        self._memory[address] = array.tobytes()
        return address

    def download(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.frombuffer(self._memory[self._names[name]], dtype).reshape(shape)

    def synchronize(self) -> None:
        pass


def open_fake(toolkit: Toolkit) -> Any:
    """A device for `Construction`."""

    @contextmanager
    def opened() -> Iterator[FakeDevice]:
        yield FakeDevice(toolkit.trt.world.memory)

    return opened
