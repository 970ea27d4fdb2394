"""Reads the version that a TensorRT library exports as a symbol name, without loading the library.

Every libnvinfer exports a symbol such as `tensorrt_version_8_6_0_12`, TensorRT-RTX's library
`tensorrt_version_1_7_1_116`. The names of exported symbols are in the dynamic string table, to which the
program headers lead (ELF-64 specification, "Program Header" and "Dynamic Section"); the rest of a library of
hundreds of megabytes is not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

ReadAt = Callable[[int, int], bytes]
"""(offset, size) → at most `size` bytes there."""

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_STRSZ = 5, 10
_MAX_STRINGS = 16 << 20
_MAX_DYNAMIC = _MAX_HEADERS = 1 << 16
_VERSION = re.compile(rb"\0tensorrt_version_(\d{1,9})_(\d{1,9})_(\d{1,9})_(\d{1,9})\0")


class Segment(NamedTuple):
    """A program header, with the fields that are needed here."""

    kind: int
    offset: int
    address: int
    size: int


def tensorrt_version(read_at: ReadAt) -> str | None:
    """The four-part version that a shared library exports; None for any file that has no such symbol."""
    try:
        match = _VERSION.search(_dynamic_strings(read_at))
    except struct.error:
        return None
    return ".".join(part.decode() for part in match.groups()) if match else None


def _dynamic_strings(read_at: ReadAt) -> bytes:
    segments = _segments(read_at)
    dynamic = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return b""
    data = read_at(dynamic.offset, min(dynamic.size, _MAX_DYNAMIC))
    entries = dict(struct.iter_unpack("<qQ", data[: len(data) // 16 * 16]))
    address, size = entries.get(_DT_STRTAB), entries.get(_DT_STRSZ, 0)
    home = next((s for s in segments if address is not None and _holds(s, address)), None)
    if home is None or address is None:
        return b""
    return read_at(home.offset + address - home.address, min(size, _MAX_STRINGS))


def _segments(read_at: ReadAt) -> list[Segment]:
    head = read_at(0, 64)
    if head[:6] != b"\x7fELF\x02\x01":  # 64 bit, little endian: all that TensorRT was ever built for
        return []
    (start,) = struct.unpack_from("<Q", head, 32)
    entry_size, count = struct.unpack_from("<HH", head, 54)
    table = read_at(start, min(entry_size * count, _MAX_HEADERS))
    return [_segment(table, i * entry_size) for i in range(count)]


def _segment(table: bytes, at: int) -> Segment:
    kind, _flags, offset, address, _physical, size = struct.unpack_from("<IIQQQQ", table, at)
    return Segment(kind, offset, address, size)


def _holds(segment: Segment, address: int) -> bool:
    return segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size
