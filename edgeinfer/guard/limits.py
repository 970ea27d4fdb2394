"""The budget page: every bound on what others can make this process hold, wait for, open or say.

A bound is declared here, beside its neighbours, and imported by the module that keeps it. docs/limits.md is generated
from this list. `test` names the test that goes beyond it.
"""

from __future__ import annotations

from typing import NamedTuple


class Bound(NamedTuple):
    """A line of the page. `beyond` says what happens to whoever asks for more; `setting` is its key, if it has one."""

    what: str
    value: int
    unit: str
    beyond: str
    test: str
    setting: str = ""


BOUNDS: list[Bound] = []


def _bound(value: int, unit: str, what: str, beyond: str, test: str, setting: str = "") -> int:
    BOUNDS.append(Bound(what, value, unit, beyond, test, setting))
    return value


# Pictures

MAX_PIXELS = _bound(
    1 << 26,
    "pixels",
    "one picture, by its header: 8192 × 8192",
    "the picture is unreadable; a camera that sends such is `failed` with `codec`",
    "test_a_picture_that_swells_is_refused_by_its_header",
)

# Memory and children

# Descriptors and threads

# Subscribers

# HTTP

# Configuration

# Models

# Engines

# Sinks

# What is said

# The subscriber's side
