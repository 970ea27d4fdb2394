"""The C library's heaps: one per thread that ever lived would not give back what it held."""

from __future__ import annotations

import contextlib
import ctypes

ARENAS = 2
_M_ARENA_MAX = -8


def bound_arenas() -> None:
    """Lets all threads share a few of glibc's heaps (mallopt(3)); before any thread is started.

    Sources that come and go are threads that come and go. With glibc's own limit of eight heaps a core the process
    grew by 15 % in ten minutes of faults, and stayed there.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has another way, or needs none
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
