"""Dotted versions as numbers."""

from __future__ import annotations

import re


def parts(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "10.14.1.48.post1" → (10, 14, 1, 48)."""
    match = re.match(r"\d+(\.\d+)*", version, re.ASCII)
    return tuple(int(number) for number in match[0].split(".")) if match else ()
