"""Walks Protocol Buffers wire format without copying: enough to look into an ONNX file without the onnx library."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1


class WireError(ValueError):
    """The bytes are no Protocol Buffers message."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) in file order: plain numbers as int, everything with a length as a view.

    Numbers of a fixed width are passed over. What Google's readers refuse, or read in another way than it looks, is a
    WireError: two readers must not see two messages in the same bytes.
    """
    position = 0
    while position < len(data):
        start = position
        tag = data[position]
        position += 1
        if tag >= 0x80:  # rare, and most of the time goes here
            tag, position = _varint(data, start)
        if not 8 <= tag < 1 << 32:  # others cut a tag down to 32 bits, which makes another field of it
            raise WireError(f"a field without a number at byte {start}")
        value, position = _value(data, position, tag & 7)
        if value is not None:
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


def _value(data: memoryview, position: int, kind: int) -> tuple[int | memoryview | None, int]:
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
    return data[position : position + length] if kind == BYTES else None, position + length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    if position < len(data) and (first := data[position]) < 0x80:
        return first, position + 1
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise WireError(f"cut off at byte {position}")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _MASK, position
    raise WireError(f"a number of more than 64 bits before byte {position}")
