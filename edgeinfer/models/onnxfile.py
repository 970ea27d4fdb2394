"""What there is to know of an ONNX file before anything loads it: its digest, inputs, outputs, nodes, external data.

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
from pathlib import Path
from typing import BinaryIO

from edgeinfer.errors import TEMPORARY, InputError, unreadable
from edgeinfer.guard.files import open_anything
from edgeinfer.guard.limits import MAX_MODEL_BYTES
from edgeinfer.models import external, wire
from edgeinfer.models.external import Mark, Span
from edgeinfer.models.walk import Walk

ELEMENT_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
ELEMENT_TYPES |= {16: "bfloat16", 17: "float8e4m3fn", 19: "float8e5m2", 21: "uint4", 22: "int4", 23: "float4e2m1"}
QUANTIZE = "QuantizeLinear"
HELD_BYTES = 256 << 20
"""A file up to this size is read, a larger one mapped: were it cut short meanwhile, a mapped one would end us."""
ORT_FORMAT = b"ORTM"


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
class Identity:
    """What a network is, down to the last weight. `sha256`: of its file, and of those beside it where there are some.

    marks: all of these files as they were read; see `unchanged`.
    """

    sha256: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An ONNX file, looked into.

    digest: sha256 of the file. external: (location, sha256) of every external data file, by location.
    weight_types: element types of all initializers and constants. marks: see `unchanged`.
    """

    path: Path
    digest: str
    external: tuple[tuple[str, str], ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    opset: int
    weight_types: frozenset[str]
    marks: tuple[Mark, ...] = ()

    @property
    def sha256(self) -> str:
        """See `Identity`."""
        return network_digest(self.digest, self.external)

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
    with _opened(path) as (data, mark):
        return _model(path, data, mark)


def check_external(path: Path) -> None:
    """Raises InputError where the network would read anything but regular files in its own folder, or is none."""
    with _opened(path) as (data, _):
        external.external_files(path, _tensors(data)[1])


def identify(path: Path) -> Identity:
    """Checks as `check_external` does, and tells what it is. Raises InputError."""
    with _opened(path) as (data, mark):
        _, spans = _tensors(data)
        found, marks = _digests(path, spans)
        return Identity(network_digest(_sha256(data), found), (mark, *marks))


def network_digest(digest: str, beside: tuple[tuple[str, str], ...]) -> str:
    """The sha256 of a network: its file's, or that of the list that sha256sum makes of all its files."""
    if not beside:
        return digest
    lines = [f"{digest}  -\n", *(f"{found}  {location}\n" for location, found in beside)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unchanged(marks: tuple[Mark, ...]) -> bool:
    """Whether the files are those that were read. Asked after they were loaded, it says what was loaded."""
    try:
        return all(external.status_of(mark.path.stat()) == mark.status for mark in marks)
    except OSError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[memoryview, Mark]]:
    """The file's bytes. Raises InputError."""
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            if size > MAX_MODEL_BYTES:
                raise InputError(f"{path}: larger than 2 GiB", "keep the weights in an external data file beside it")
            if not size:
                raise wire.WireError("it is empty")
            # Unmapped with the last view of it: an error on its way up still holds some.
            held = file.read(size) if size <= HELD_BYTES else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            yield _onnx(path, memoryview(held)), Mark(path, external.status_of(status))
    except OSError as error:
        if error.errno in TEMPORARY:
            raise unreadable(path, error) from error
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    except wire.WireError as error:
        raise InputError(f"{path}: no ONNX model ({error})", "export it again") from error


def _onnx(path: Path, data: memoryview) -> memoryview:
    """ONNX Runtime takes a file of its own format for that whatever else it may be."""
    if path.suffix.lower() == ".ort" or data[4:8] == ORT_FORMAT:
        raise wire.WireError("it is in ONNX Runtime's own format")
    return data


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file. A pipe, which would be waited for without end, is an InputError."""
    file = open_anything(path)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path}: not a regular file", "copy it to one")
    return file


def _model(path: Path, data: memoryview, mark: Mark) -> OnnxModel:
    types, spans = _tensors(data)
    graph = next(wire.messages(data, 7), None)
    if graph is None:
        raise wire.WireError("it holds no graph")
    initializers = {wire.text(tensor, 8) for tensor in wire.messages(graph, 5)}
    inputs = tuple(t for t in map(_tensor, wire.messages(graph, 11)) if t.name not in initializers)
    outputs = tuple(_tensor(value) for value in wire.messages(graph, 12))
    if not inputs or not outputs:
        raise wire.WireError("its graph has no inputs or no outputs")
    nodes = tuple(Node(wire.text(n, 3), wire.text(n, 4)) for n in wire.messages(graph, 1))
    beside, marks = _digests(path, spans)
    return OnnxModel(path, _sha256(data), beside, inputs, outputs, nodes, _opset(data), types, (mark, *marks))


def _tensors(data: memoryview) -> tuple[frozenset[str], list[Span]]:
    """The element types of all tensors, and where those lie that are not in the file itself."""
    walk, kinds, spans = Walk(), set(), []
    for tensor in walk.tensors(data):
        kind, span = external.span_of(walk, tensor)
        kinds.add(kind)
        if span is not None:
            spans.append(span)
    return frozenset(ELEMENT_TYPES.get(kind, "unknown") for kind in kinds), spans


def _digests(path: Path, spans: list[Span]) -> tuple[tuple[tuple[str, str], ...], tuple[Mark, ...]]:
    digests, marks = [], []
    for location, file in external.external_files(path, spans).items():
        digest, mark = external.digest_of(file)
        digests.append((location, digest))
        marks.append(mark)
    return tuple(digests), tuple(marks)


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
