"""Protocol Buffers wire format, written plainly here and read by the package."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.models import wire

Field = tuple[int, int | bytes]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def encoded(fields: list[Field]) -> bytes:
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


FIELDS = st.lists(
    st.tuples(st.integers(1, 1 << 28), st.integers(0, (1 << 64) - 1) | st.binary(max_size=300)), max_size=8
)


@given(FIELDS)
def test_what_is_written_is_read(written: list[Field]) -> None:
    data = memoryview(encoded(written))
    read = [(number, value if isinstance(value, int) else bytes(value)) for number, value in wire.fields(data)]
    assert read == written
    for number, _ in written:
        same = [value for found, value in written if found == number]
        assert [bytes(m) for m in wire.messages(data, number)] == [v for v in same if isinstance(v, bytes)]
        assert list(wire.numbers(data, number)) == [v for v in same if isinstance(v, int)]


def test_fixed_numbers_are_passed_over() -> None:
    data = memoryview(varint(1 << 3 | 1) + b"8" * 8 + varint(2 << 3 | 5) + b"4444" + encoded([(3, b"x")]))
    assert [number for number, _ in wire.fields(data)] == [3]
    assert wire.text(data, 3) == "x"


def test_text_is_the_last_of_its_field() -> None:
    data = memoryview(encoded([(1, b"a"), (2, b"b"), (1, b"\xff")]))
    assert (wire.text(data, 1), wire.text(data, 2), wire.text(data, 3)) == ("\ufffd", "b", "")


@given(FIELDS, st.integers(1, 20))
def test_a_cut_off_message_is_told_or_shorter(written: list[Field], cut: int) -> None:
    data = encoded(written)
    try:
        read = list(wire.fields(memoryview(data[: max(0, len(data) - cut)])))
    except wire.WireError:
        return
    assert len(read) < max(1, len(written)) or not written


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (varint(1 << 3 | 2) + b"\x05ab", "cut off at byte 2"),
        (varint(1 << 3 | 5) + b"abc", "cut off at byte 1"),
        (varint(1 << 3), "cut off at byte 1"),
        (varint(1 << 3) + b"\x80", "cut off at byte 2"),
        (varint(1 << 3 | 3), "wire type 3 at byte 1"),
        (varint(1 << 3 | 4), "wire type 4 at byte 1"),
        (varint(1 << 3) + b"\xff" * 10 + b"\x01", "a number of more than 64 bits before byte 11"),
    ],
)
def test_what_is_no_message_is_told_with_its_place(data: bytes, says: str) -> None:
    with pytest.raises(wire.WireError, match=says):
        list(wire.fields(memoryview(data)))
