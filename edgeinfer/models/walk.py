"""Finds every tensor that an ONNX file may hold, wherever onnx.proto lets one be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeinfer.guard.limits import MAX_GRAPH_DEPTH, MAX_ONNX_FIELDS
from edgeinfer.models import wire
from edgeinfer.models.schema import FIELDS, GRAPH, MODEL, NODE, SINGLE, TENSOR

OPERATOR = 4
COMPILED = b"EPContext"
_TELLING = re.compile(rb"location|EPContext")
"""What any message that names a file to read must hold, however new its format is."""


class Walk:
    """One pass over the bytes of a model. Raises WireError for what no exporter writes."""

    def __init__(self) -> None:
        self._left = MAX_ONNX_FIELDS

    def tensors(self, data: memoryview, kind: str = MODEL, depth: int = 0) -> Iterator[memoryview]:
        """Every TensorProto in a message of this kind, which lies in `depth` graphs."""
        depth += kind == GRAPH
        if depth > MAX_GRAPH_DEPTH:
            raise wire.WireError(f"graphs nested more than {MAX_GRAPH_DEPTH} deep")
        held = FIELDS[kind]
        for number, value in self.fields(kind, data):
            inner = held.get(number)
            if inner and isinstance(value, memoryview):
                if inner == TENSOR:
                    yield value
                else:
                    yield from self.tensors(value, inner, depth)
            elif (kind, number) == (NODE, OPERATOR) and memoryview(COMPILED) == value:
                raise wire.WireError("it holds code compiled for a device (EPContext), which names files to load")

    def fields(self, kind: str, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The fields of a message of this kind, in file order. One that is not known here holds nothing of interest."""
        known, seen = FIELDS[kind], set()
        for number, value in wire.fields(data):
            self._left -= 1
            if self._left < 0:
                raise wire.WireError(f"more than {MAX_ONNX_FIELDS:,} fields".replace(",", " "))
            if (kind, number) in SINGLE:
                if number in seen:
                    raise wire.WireError(f"field {number} of a {kind} is written twice")
                seen.add(number)
            if number not in known and isinstance(value, memoryview) and _TELLING.search(value):
                raise wire.WireError(f"field {number} of a {kind} is newer than this edgeinfer, and may name a file")
            yield number, value
