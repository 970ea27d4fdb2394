"""Device memory for pictures, one piece each: whoever decodes asks for it here, whoever reads it holds it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_thread = threading.local()


class Lease:
    """Device memory that somebody has lent. `give_back` is called when nobody refers to this any more.

    It may be called in any thread, under any lock: it only takes note.
    """

    __slots__ = ("__weakref__", "address", "number")

    def __init__(self, address: int, number: int, give_back: Callable[[int], None]) -> None:
        self.address, self.number = address, number
        weakref.finalize(self, give_back, number).atexit = False


class Supply(Protocol):
    """Where a thread that decodes has its device memory from. Used by that thread."""

    def take(self, size: int) -> Lease | None:
        """At least `size` bytes; None where pictures are to lie in host memory. Raises StalledError without room."""


@contextmanager
def supplied(supply: Supply) -> Iterator[None]:
    """Has this thread's leases come from there meanwhile."""
    before = getattr(_thread, "supply", None)
    _thread.supply = supply
    try:
        yield
    finally:
        _thread.supply = before


def lease(size: int) -> Lease | None:
    """See `Supply.take`; None in a thread that nobody supplies."""
    supply: Supply | None = getattr(_thread, "supply", None)
    return None if supply is None else supply.take(size)
