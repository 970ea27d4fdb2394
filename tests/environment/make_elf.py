"""Makes a shared library of a few hundred bytes that exports names, for trees whose real one is too large.

Laid out by the ELF-64 specification: a header, two program headers (LOAD, DYNAMIC), the dynamic section and
the strings.
"""

from __future__ import annotations

import struct

BASE = 0x10000
"""Where the file is mapped, so that a reader that takes addresses for file offsets fails."""


def make_elf(*names: str) -> bytes:
    """A library whose dynamic string table holds `names`."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    dynamic_at = 64 + 2 * 56
    strings_at = dynamic_at + 3 * 16
    end = strings_at + len(strings)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, end, end, 0x1000)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, BASE + dynamic_at, BASE + dynamic_at, 48, 48, 8)
    entries = struct.pack("<qQqQqQ", 5, BASE + strings_at, 10, len(strings), 0, 0)
    return head + load + dynamic + entries + strings
