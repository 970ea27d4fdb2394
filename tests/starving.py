"""A process that has no more file descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Within it this process can open nothing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 (names alone)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, limits[1]))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        yield
