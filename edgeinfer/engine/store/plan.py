"""Reads the header of a serialized engine, without TensorRT and without a GPU.

The layouts were read off plans written by TensorRT 8.6 and TensorRT-RTX 1.7 and off the code of their loaders;
all numbers are little-endian:

    ftrt (8.6 and later)    magic, u32 layout, i64 entries, i64 size of the plan, u8 major, minor, patch, build
    vtrt (TensorRT-RTX)     the same, then "trtv" and a u32 mask of compute capabilities
    ptrt (up to 8.5)        magic, and no version that can be read

Ultralytics writes an i32 length and that many bytes of JSON in front of the plan.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edgeinfer.engine.errors import PlanError

Version = tuple[int, int, int, int]

HEADER_BYTES = 36
WRAPPER_LIMIT = 1 << 20
FLAVOURS = {b"ftrt": "tensorrt", b"ptrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
RTX_CAPABILITIES = ((0x01, "7.5"), (0x02, "8.0"), (0x04, "8.6"), (0x08, "8.9"), (0x10, "12.0"), (0x20, "12.1"))


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What the first bytes of a plan say.

    version: four parts, the last one modulo 256; None up to TensorRT 8.5, which wrote none.
    size: bytes of the plan itself; offset: bytes in front of it; metadata: what the wrapper there held.
    capabilities: compute capabilities that the plan runs on; only TensorRT-RTX says so, empty otherwise.
    """

    flavour: str
    version: Version | None
    size: int
    offset: int = 0
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def built_by(self, version: Version) -> bool:
        """Whether TensorRT `version` may have written this plan. True where the plan doesn't say."""
        return self.version is None or self.version == (*version[:3], version[3] % 256)


def read_header(path: Path) -> PlanHeader:
    """The header of the plan in `path`. Raises PlanError for anything that is no complete plan."""
    try:
        with path.open("rb") as file:
            return parse_header(file, path.stat().st_size, str(path))
    except OSError as error:
        raise PlanError(f"{path}: can't be read ({error.strerror})", "check the path and its permissions") from error


def parse_header(file: BinaryIO, size: int, name: str) -> PlanHeader:
    """The header of the plan in `file`, `size` bytes from its start to its end. Raises PlanError."""
    metadata, offset = _wrapper(file, size)
    file.seek(offset)
    head = file.read(HEADER_BYTES)
    flavour = FLAVOURS.get(head[:4])
    if flavour is None:
        raise PlanError(f"{name}: no TensorRT plan (it begins with {head[:4].hex(' ') or 'nothing'})", REBUILD)
    if head[:4] == b"ptrt":
        return PlanHeader(flavour, None, size - offset, offset, (), metadata)
    if len(head) < HEADER_BYTES:
        raise PlanError(f"{name}: cut off inside its header, after {len(head)} bytes", REBUILD)
    return _modern(head, flavour, PlanHeader(flavour, None, size - offset, offset, (), metadata), name)


REBUILD = "build it again with `edgeinfer build`"


def _modern(head: bytes, flavour: str, frame: PlanHeader, name: str) -> PlanHeader:
    stated, version = struct.unpack_from("<q", head, 16)[0], tuple(head[24:28])
    if stated != frame.size:
        raise PlanError(f"{name}: should hold {stated} bytes and holds {frame.size}", REBUILD)
    capabilities = _capabilities(head) if flavour == "tensorrt_rtx" else ()
    major, minor, patch, build = version
    return PlanHeader(flavour, (major, minor, patch, build), stated, frame.offset, capabilities, frame.metadata)


def _capabilities(head: bytes) -> tuple[str, ...]:
    if head[28:32] != b"trtv":
        return ()
    mask = struct.unpack_from("<I", head, 32)[0]
    return tuple(name for bit, name in RTX_CAPABILITIES if mask & bit)


def _wrapper(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Metadata in front of the plan and its length in bytes; ({}, 0) where there is none."""
    start = file.read(5)
    length = struct.unpack("<i", start[:4])[0] if len(start) == 5 else 0
    if start[:4] in FLAVOURS or start[4:] != b"{" or not 0 < length <= min(WRAPPER_LIMIT, size - 4):
        return {}, 0
    file.seek(4)
    try:
        metadata = json.loads(file.read(length))
    except (ValueError, RecursionError):
        return {}, 0
    return metadata, 4 + length
