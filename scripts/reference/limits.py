"""docs/limits.md: every bound of `edgeinfer/guard/limits.py`."""

from __future__ import annotations

from edgeinfer.guard.limits import BOUNDS
from reference.tables import table as markdown

POWERS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def table() -> str:
    """A row for each bound, in the order of the file."""
    rows = (
        (
            bound.what,
            amount(bound.value, bound.unit),
            bound.beyond,
            f"`{bound.setting}`" if bound.setting else "",
            f"`{bound.test}`",
        )
        for bound in BOUNDS
    )
    return markdown(("what", "bound", "beyond it", "setting", "test"), rows)


def amount(value: int, unit: str) -> str:
    """A number for people: `64 KiB`, `256 connections`."""
    if unit == "bytes":
        for size, name in POWERS:
            if value >= size and value % size == 0:
                return f"{value // size} {name}"
    return f"{value:,} {unit}"
