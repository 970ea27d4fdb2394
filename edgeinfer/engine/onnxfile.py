"""What the cache and the builder must know about an ONNX file: inputs, outputs, nodes, element types, external data.

Field numbers are those of onnx.proto3. Weights are skipped, not copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.engine import wire
from edgeinfer.errors import InputError

ELEMENT_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
ELEMENT_TYPES |= {16: "bfloat16", 17: "float8e4m3fn", 19: "float8e5m2", 21: "uint4", 22: "int4", 23: "float4e2m1"}
QUANTIZE = "QuantizeLinear"
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Tensor:
    """A graph input or output. A free dimension is -1; `dtype` is NumPy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the main graph, in file order, as TensorRT's parser counts them."""

    name: str
    operator: str


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An ONNX file, looked into.

    digest: sha256 of the file. external: (location, sha256) of every external data file, by location.
    weight_types: element types of all initializers and constants.
    """

    path: Path
    digest: str
    external: tuple[tuple[str, str], ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    opset: int
    weight_types: frozenset[str]

    @property
    def quantized(self) -> bool:
        """Whether it carries its own INT8 scales (Q/DQ nodes)."""
        return any(node.operator == QUANTIZE for node in self.nodes)

    @property
    def half(self) -> bool:
        """Whether some weights are 16-bit floats already."""
        return bool(self.weight_types & {"float16", "bfloat16"})


def read_model(path: Path) -> OnnxModel:
    """Looks into the ONNX file. Raises InputError where it can't be read, is no ONNX, or lacks external data."""
    try:
        return _model(path, memoryview(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    except wire.WireError as error:
        raise InputError(f"{path}: no ONNX model ({error})", "export it again") from error


def _model(path: Path, data: memoryview) -> OnnxModel:
    graph = next(wire.messages(data, 7), None)
    if graph is None:
        raise wire.WireError("it holds no graph")
    tensors = [_weight(tensor) for tensor in _all_tensors(data)]
    initializers = {wire.text(tensor, 8) for tensor in wire.messages(graph, 5)}
    inputs = tuple(t for t in map(_tensor, wire.messages(graph, 11)) if t.name not in initializers)
    outputs = tuple(_tensor(value) for value in wire.messages(graph, 12))
    if not inputs or not outputs:
        raise wire.WireError("its graph has no inputs or no outputs")
    nodes = tuple(Node(wire.text(n, 3), wire.text(n, 4)) for n in wire.messages(graph, 1))
    external = _external(path, sorted({location for _, location in tensors if location}))
    types = frozenset(kind for kind, _ in tensors)
    return OnnxModel(path, _sha256(data), external, inputs, outputs, nodes, _opset(data), types)


def _opset(data: memoryview) -> int:
    sets = {wire.text(item, 1): next(wire.numbers(item, 2), 0) for item in wire.messages(data, 8)}
    return sets.get("", sets.get("ai.onnx", 0))


def _tensor(value: memoryview) -> Tensor:
    kind = next((t for proto in wire.messages(value, 2) for t in wire.messages(proto, 1)), memoryview(b""))
    element = ELEMENT_TYPES.get(next(wire.numbers(kind, 1), 0), "unknown")
    shape = [_dimension(dim) for proto in wire.messages(kind, 2) for dim in wire.messages(proto, 1)]
    return Tensor(wire.text(value, 1), tuple(shape), element)


def _dimension(dim: memoryview) -> int:
    size = next(wire.numbers(dim, 1), 0)
    return size if 0 < size < 1 << 63 else -1


def _all_tensors(model: memoryview) -> Iterator[memoryview]:
    for graph in wire.messages(model, 7):
        yield from _graph_tensors(graph, MAX_DEPTH)
    for function in wire.messages(model, 25):
        for node in wire.messages(function, 7):
            yield from _node_tensors(node, MAX_DEPTH)


def _graph_tensors(graph: memoryview, depth: int) -> Iterator[memoryview]:
    if not depth:
        raise wire.WireError(f"graphs nested more than {MAX_DEPTH} deep")
    yield from wire.messages(graph, 5)
    for sparse in wire.messages(graph, 15):
        yield from wire.messages(sparse, 1)
        yield from wire.messages(sparse, 2)
    for node in wire.messages(graph, 1):
        yield from _node_tensors(node, depth)


def _node_tensors(node: memoryview, depth: int) -> Iterator[memoryview]:
    for attribute in wire.messages(node, 5):
        for number in (5, 10):
            yield from wire.messages(attribute, number)
        for number in (6, 11):
            for graph in wire.messages(attribute, number):
                yield from _graph_tensors(graph, depth - 1)


def _weight(tensor: memoryview) -> tuple[str, str]:
    """Element type of a tensor, and the file that holds it where that is another one ("" otherwise)."""
    kind = ELEMENT_TYPES.get(next(wire.numbers(tensor, 2), 0), "unknown")
    entries = {wire.text(entry, 1): wire.text(entry, 2) for entry in wire.messages(tensor, 13)}
    return kind, entries.get("location", "") if next(wire.numbers(tensor, 14), 0) == 1 else ""


def _external(model: Path, locations: list[str]) -> tuple[tuple[str, str], ...]:
    folder = model.parent.resolve()
    found = []
    for location in locations:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            raise InputError(f"{model}: external data {location!r} lies outside the model's folder", "move it there")
        found.append((location, file_digest(path)))
    return tuple(found)


def file_digest(path: Path) -> str:
    """sha256 of a file, as hex. Raises InputError where it can't be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    return digest.hexdigest()


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
