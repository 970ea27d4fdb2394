"""How large a picture is, by its first bytes: known before there is memory for its pixels.

PNG: W3C Recommendation, "Portable Network Graphics", 11.2.2. JPEG: ITU-T T.81, B.2.2.
"""

from __future__ import annotations

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG's markers SOF0 to SOF15, among which DHT, JPG and DAC have their numbers."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length: TEM, RST0 to RST7, SOI."""


def size(head: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels of a PNG or JPEG that begins with `head`; None where that can't be seen in it."""
    if head.startswith(_PNG):
        return _of_png(head)
    return _of_jpeg(head) if head.startswith(b"\xff\xd8") else None


def _of_png(head: bytes) -> tuple[int, int] | None:
    if len(head) < 24 or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", head, 16)
    return height, width


def _of_jpeg(head: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker in _SIZES:
            height, width = struct.unpack_from(">HH", head, place + 5)
            return height, width
        else:
            place += 2 + struct.unpack_from(">H", head, place + 2)[0]
    return None
