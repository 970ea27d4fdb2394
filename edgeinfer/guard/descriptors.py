"""How many file descriptors this process may have, and one that is kept for when there are no more."""

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


class SpareDescriptor:
    """Kept open by a server, to be given up for who knocks when the process has no other left. Used by one thread."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is there."""
        return self._descriptor is not None

    def reserve(self) -> None:
        """Takes one, if there is one to be had."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_up(self) -> bool:
        """Frees it. Whether it was there."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None


def _is_free(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
