"""What NVIDIA's decoder prints with C's printf: counted, and never among what this process writes to stdout.

glibc's printf writes to where the variable `stdout` points (stdio(3)); Python doesn't look at it.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading

log = logging.getLogger(__name__)

DAMAGE = b"Decode Error"
"""How its word of a damaged picture begins. Of which stream it does not say."""
_LINE_BUFFERED = 1


@functools.cache
def listen() -> None:
    """From now on. The log tells of damage each time that it has doubled. The reader is always there to read."""
    reader, writer = os.pipe()
    library = ctypes.CDLL(None)
    library.fdopen.restype, library.fdopen.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_char_p)
    library.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    file = library.fdopen(writer, b"w")
    library.setvbuf(file, None, _LINE_BUFFERED, 0)
    threading.Thread(target=_count, args=(reader,), name="nvdec-words", daemon=True).start()
    ctypes.c_void_p.in_dll(library, "stdout").value = file


def _count(reader: int) -> None:
    damaged, told = 0, 0
    with os.fdopen(reader, "rb", buffering=0) as file:
        while chunk := file.read(1 << 16):
            damaged += chunk.count(DAMAGE)
            if damaged > 2 * told:
                told = damaged
                log.warning("NVDEC: %d damaged pictures so far; it does not say of which source", damaged)
