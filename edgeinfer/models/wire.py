"""Walks Protocol Buffers wire format without copying: enough to look into an ONNX file without the onnx library."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are no Protocol Buffers message."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) in file order; numbers as int, everything with a length as a view. Raises WireError."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value, position = _value(data, position, tag & 7)
        yield tag >> 3, value


def messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """Every sub-message, string or bytes with this field number."""
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def numbers(data: memoryview, number: int) -> Iterator[int]:
    """Every plain (not packed) number with this field number."""
    for found, value in fields(data):
        if found == number and isinstance(value, int):
            yield value


def text(data: memoryview, number: int) -> str:
    """The last string with this field number, "" where there is none."""
    found = ""
    for value in messages(data, number):
        found = bytes(value).decode("utf-8", "replace")
    return found


def _value(data: memoryview, position: int, kind: int) -> tuple[int | memoryview, int]:
    if kind == VARINT:
        return _varint(data, position)
    if kind == BYTES:
        length, position = _varint(data, position)
    elif kind in {FIXED32, FIXED64}:
        length = 4 if kind == FIXED32 else 8
    else:
        raise WireError(f"wire type {kind} at byte {position}")
    if position + length > len(data):
        raise WireError(f"cut off at byte {position}")
    return data[position : position + length], position + length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise WireError(f"cut off at byte {position}")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise WireError(f"a number of more than 64 bits before byte {position}")
