"""What the cache and the builder must know about an ONNX file: inputs, outputs, nodes, element types, external data.

Field numbers are those of onnx.proto3. Weights are skipped, not copied.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgeinfer.errors import TEMPORARY, InputError, unreadable
from edgeinfer.guard.files import open_anything
from edgeinfer.models import wire

ELEMENT_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
ELEMENT_TYPES |= {16: "bfloat16", 17: "float8e4m3fn", 19: "float8e5m2", 21: "uint4", 22: "int4", 23: "float4e2m1"}
QUANTIZE = "QuantizeLinear"
MAX_DEPTH = 32
MAX_BYTES = 2 << 30
"""protobuf's own limit; a larger network keeps its weights beside it."""


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
    with _opened(path) as data:
        return _model(path, data)


def check_external(path: Path) -> None:
    """Raises InputError where the network would read anything but regular files in its own folder, or is none."""
    with _opened(path) as data:
        for tensor in _all_tensors(data):
            if location := _location(tensor):
                _external_path(path, location)


@contextmanager
def _opened(path: Path) -> Iterator[memoryview]:
    """The file's bytes, mapped rather than read. Raises InputError."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise InputError(f"{path}: larger than 2 GiB", "keep the weights in an external data file beside it")
            if not size:
                raise wire.WireError("it is empty")
            # Unmapped with the last view of it: an error on its way up still holds some.
            yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        if error.errno in TEMPORARY:
            raise unreadable(path, error) from error
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    except wire.WireError as error:
        raise InputError(f"{path}: no ONNX model ({error})", "export it again") from error


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file. A pipe, which would be waited for without end, is an InputError."""
    file = open_anything(path)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path}: not a regular file", "copy it to one")
    return file


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
        yield from _sparse_tensors(sparse)
    for node in wire.messages(graph, 1):
        yield from _node_tensors(node, depth)


def _sparse_tensors(sparse: memoryview) -> Iterator[memoryview]:
    yield from wire.messages(sparse, 1)
    yield from wire.messages(sparse, 2)


def _node_tensors(node: memoryview, depth: int) -> Iterator[memoryview]:
    for attribute in wire.messages(node, 5):
        for number in (5, 10):
            yield from wire.messages(attribute, number)
        for number in (22, 23):
            for sparse in wire.messages(attribute, number):
                yield from _sparse_tensors(sparse)
        for number in (6, 11):
            for graph in wire.messages(attribute, number):
                yield from _graph_tensors(graph, depth - 1)


def _weight(tensor: memoryview) -> tuple[str, str]:
    """Element type of a tensor, and the file that holds it where that is another one ("" otherwise)."""
    return ELEMENT_TYPES.get(next(wire.numbers(tensor, 2), 0), "unknown"), _location(tensor)


def _location(tensor: memoryview) -> str:
    """Where the tensor's data lies, "" for in the file itself.

    Whatever names a file counts, however `data_location` is set: which of several values wins is a reader's choice.
    """
    found = {wire.text(entry, 2) for entry in wire.messages(tensor, 13) if wire.text(entry, 1) == "location"}
    if len(found) > 1:
        raise wire.WireError("a tensor names two external files")
    return found.pop() if found else ""


def _external(model: Path, locations: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((location, file_digest(_external_path(model, location))) for location in locations)


def _external_path(model: Path, location: str) -> Path:
    """The file that a location names. Raises InputError where it is none in the model's folder, or hides behind a link.

    What a network names is read as us: a path out of its folder would make it read any file of this machine.
    """
    relative = PurePosixPath(location)
    if "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{model}: external data {location!r} lies outside the model's folder", "move it there")
    path = model.parent
    for part in relative.parts:
        path = path / part
        if path.is_symlink():
            raise InputError(f"{model}: external data {location!r} is a symbolic link", "put the file itself there")
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in TEMPORARY:
            raise unreadable(path, error) from error
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{model}: external data {location!r} is no regular file", "export the model again")
    return path


def file_digest(path: Path) -> str:
    """sha256 of a file, as hex. Raises InputError where it can't be read."""
    try:
        with open_regular(path) as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        if error.errno in TEMPORARY:
            raise unreadable(path, error) from error
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    return digest.hexdigest()


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
