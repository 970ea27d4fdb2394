"""How many file descriptors this process may have."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from edgeinfer.guard.limits import DESCRIPTORS_WANTED


def limit() -> int:
    """The soft limit: what `open` and `accept` are held to."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DESCRIPTORS_WANTED if soft == resource.RLIM_INFINITY else soft


def used() -> int:
    """Those that are open now."""
    try:
        return len(list(Path("/proc/self/fd").iterdir())) - 1  # the one that the listing itself needed
    except OSError:  # no /proc, or not one descriptor left to look
        return limit() - sum(_is_free(number) for number in range(limit()))


def raise_limit(wanted: int = DESCRIPTORS_WANTED) -> int:
    """Raises the soft limit to `wanted`, as far as the hard one allows. Returns what it is now; never lowers it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return limit()


def _is_free(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
