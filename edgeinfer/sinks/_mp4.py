"""Fragmented MP4 (ISO/IEC 14496-12): a file that can be played up to its last whole fragment, however it ends.

The pictures are encoded elsewhere, into ordinary MP4 files of a second each; what is in one becomes a fragment here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SAMPLE_TICKS = 1000
"""How long a picture is shown, in ticks of the track."""
_KEY, _OTHER = 0x02000000, 0x01010000  # depends on no other; depends on others and is no place to begin


class Track(NamedTuple):
    """The one track of a whole MP4 file: its boxes, its samples' sizes in bytes, which are keys, and their bytes."""

    boxes: dict[str, bytes]
    sizes: Sequence[int]
    keys: frozenset[int]
    data: bytes


def read_track(file: bytes) -> Track:
    """The track of an MP4 file as FFmpeg writes one: a single `mdat`, in it the samples in order.

    Raises ValueError where it is another or a damaged one.
    """
    try:
        boxes = {**_boxes(file), **_boxes(file, "moov", "trak", "mdia", "minf", "stbl")}
        for path in (("moov",), ("moov", "trak"), ("moov", "trak", "mdia"), ("moov", "trak", "mdia", "minf")):
            boxes.update(_boxes(file, *path))
        count = struct.unpack_from(">I", boxes["stsz"], 16)[0]
        uniform = struct.unpack_from(">I", boxes["stsz"], 12)[0]
        sizes = [uniform] * count if uniform else list(struct.unpack_from(f">{count}I", boxes["stsz"], 20))
        keys = list(range(1, count + 1))
        if "stss" in boxes:
            keys = list(struct.unpack_from(f">{struct.unpack_from('>I', boxes['stss'], 12)[0]}I", boxes["stss"], 16))
        data = boxes["mdat"][_header_bytes(boxes["mdat"]) :]
        if sum(sizes) != len(data) or not sizes:
            raise ValueError(f"{len(data)} bytes, where its index says {sum(sizes)}")
        return Track(boxes, sizes, frozenset(keys), data)
    except (struct.error, KeyError) as error:
        raise ValueError(f"no MP4 file as expected: {error!r}") from None


def beginning(track: Track, ticks_per_s: int) -> bytes:
    """What stands before the first fragment: how samples like those of `track` are decoded."""
    boxes = track.boxes
    empty = _full("stts", 0) + _full("stsc", 0) + _full_body("stsz", bytes(8)) + _full("stco", 0)
    media = b"".join((
        _full_body("mdhd", struct.pack(">IIIIHH", 0, 0, ticks_per_s, 0, 0x55C4, 0)),
        boxes["hdlr"],
        _box("minf", boxes["vmhd"] + boxes["dinf"] + _box("stbl", boxes["stsd"] + empty)),
    ))  # fmt: skip
    header = bytearray(boxes["tkhd"])
    struct.pack_into(">I", header, 28, 0)  # its duration: fragments have their own
    movie = bytearray(boxes["mvhd"])
    struct.pack_into(">II", movie, 20, ticks_per_s, 0)
    extends = _full_body("trex", struct.pack(">IIIII", 1, 1, SAMPLE_TICKS, 0, _OTHER))
    moov = bytes(movie) + _box("trak", bytes(header) + _box("mdia", media)) + _box("mvex", extends)
    return _box("ftyp", b"iso5" + struct.pack(">I", 512) + b"iso5iso6mp41") + _box("moov", moov)


def fragment(track: Track, number: int, samples_before: int) -> bytes:
    """The samples of `track` as fragment `number`, counted from 1, behind so many samples."""
    size = 8 + 16 + 8 + 16 + 20 + 20 + 8 * len(track.sizes)
    samples = b"".join(
        struct.pack(">II", length, _KEY if index in track.keys else _OTHER)
        for index, length in enumerate(track.sizes, 1)
    )
    runs = b"".join((
        _box("tfhd", struct.pack(">II", 0x020000, 1)),  # offsets count from this fragment
        _box("tfdt", struct.pack(">IQ", 1 << 24, samples_before * SAMPLE_TICKS)),
        _box("trun", struct.pack(">IIi", 0x000601, len(track.sizes), size + 8) + samples),
    ))  # fmt: skip
    moof = _box("moof", _full("mfhd", number) + _box("traf", runs))
    assert len(moof) == size  # noqa: S101 (the offset above rests on it)
    return moof + _box("mdat", track.data)


def _boxes(data: bytes, *path: str) -> dict[str, bytes]:
    """The boxes, with their headers, that are in the box at `path`, by type; the last of each type."""
    for name in path:
        data = dict(_split(data))[name]
        data = data[_header_bytes(data) :]
    return dict(_split(data))


def _split(data: bytes) -> Iterator[tuple[str, bytes]]:
    offset = 0
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        if size == 1:
            size = struct.unpack_from(">Q", data, offset + 8)[0]
        if size < 8 or offset + size > len(data):
            raise ValueError(f"a box of {size} bytes at {offset} of {len(data)}")
        yield kind.decode("latin-1"), data[offset : offset + size]
        offset += size


def _header_bytes(box: bytes) -> int:
    return 16 if struct.unpack_from(">I", box)[0] == 1 else 8


def _box(kind: str, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def _full(kind: str, value: int) -> bytes:
    return _full_body(kind, struct.pack(">I", value))


def _full_body(kind: str, body: bytes) -> bytes:
    return _box(kind, bytes(4) + body)
