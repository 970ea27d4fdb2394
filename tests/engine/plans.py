"""Plans for tests: a true header around any body."""

from __future__ import annotations

import struct


def make_plan(
    version: tuple[int, int, int, int] = (10, 3, 0, 30), body: bytes = b"kernels", magic: bytes = b"ftrt"
) -> bytes:
    """A plan whose header says `version` and its true size."""
    return magic + struct.pack("<IqqBBBB", 0, 1, 28 + 8 + len(body), *version) + bytes(8) + body
