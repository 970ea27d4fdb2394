"""Text from anywhere → text that can be shown: to a person, in a log, on a terminal, in a message."""

from __future__ import annotations

import re

from edgeinfer.guard.redaction import redact

MAX_LENGTH = 2000
"""Of a line, in characters: one that nobody can read helps nobody."""

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` as one line that can be encoded and shown: no line breaks, no half characters, no credentials."""
    line = without_controls(redact(" ".join(text.split()).encode("utf-8", "backslashreplace").decode()))
    return line if len(line) <= MAX_LENGTH else f"{line[:MAX_LENGTH]}…"


def without_controls(text: str) -> str:
    """`text` with � for each control character but the line feed: it may come from anybody, and a terminal obeys."""
    return _CONTROLS.sub("�", text)


def escaped(json: str) -> str:
    """A JSON text with its control characters written as escapes, which leaves its meaning as it is."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json)
