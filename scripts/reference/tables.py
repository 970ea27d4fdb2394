"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table without a line break at its end. A bar in a cell is escaped."""
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"|{'|'.join(_cell(cell) for cell in line)}|" for line in lines)


def of_codes(heading: str, codes: Mapping[Any, str]) -> str:
    """Codes and what they mean, as in `edgeinfer/codes.py`."""
    return table((heading, "meaning"), ((f"`{code}`", text) for code, text in codes.items()))


def _cell(text: str) -> str:
    if text == "---":
        return text
    return f" {text.replace('|', chr(92) + '|')} " if text else " "
