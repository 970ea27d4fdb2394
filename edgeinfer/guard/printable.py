"""Text from anywhere → text that can be shown: to a person, in a log, on a terminal, in a message."""

from __future__ import annotations

import logging
import re
import traceback

from edgeinfer.guard.limits import MAX_LINE_LENGTH
from edgeinfer.guard.redaction import redact

_OBEYED = (
    r"\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters: ESC, the 8-bit CSI and OSC, carriage return
    r"\u2028\u2029"  # line and paragraph separator
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0f\ufeff"
    r"\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # nothing to be seen
    r"\ud800-\udfff"  # halves of characters
)
"""Unicode's Default_Ignorable_Code_Point, Bidi_Control, Cc, Cs, Zl and Zp; the line feed is left."""
_UNSAFE = re.compile(f"[{_OBEYED}]")
_UNSAFE_IN_LINE = re.compile(rf"[\n{_OBEYED}]")


def printable(text: str) -> str:
    """`text` as one short line that can be encoded and shown: no line breaks, no half characters, no credentials."""
    line = " ".join(redact(text).split()).encode("utf-8", "backslashreplace").decode()
    line = redact(one_line(line))
    return line if len(line) <= MAX_LINE_LENGTH else f"{line[:MAX_LINE_LENGTH]}…"


def one_line(text: str) -> str:
    """`text` with � for each character that a terminal obeys or that nobody sees, line feeds among them."""
    return _UNSAFE_IN_LINE.sub("�", text)


def visible(text: str) -> str:
    """The same for a text of several lines of ours: line feeds stay."""
    return _UNSAFE.sub("�", text)


def escaped(json: str) -> str:
    """A JSON text with such characters written as escapes, which leaves its meaning as it is."""
    return _UNSAFE.sub(lambda found: _escape(ord(found[0])), json)


class PrintableFormatter(logging.Formatter):
    """For log lines: what a library or a plugin says, and its traceback, may hold anything.

    A record is one line; the lines of its traceback are indented, so that none of them can look like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, and those of a traceback, without credentials."""
        said = logging.makeLogRecord({**record.__dict__, "msg": record.getMessage(), "args": None})
        said.exc_info = said.exc_text = said.stack_info = None
        lines = [printable(super().format(said))]
        if record.exc_info and record.exc_info[1] is not None:
            lines += indented(record.exc_info[1])
        return "\n".join(lines)


def indented(error: BaseException) -> list[str]:
    """A traceback as lines that can be shown."""
    text = visible(redact("".join(traceback.format_exception(error)).rstrip()))
    return [f"  {line}" for line in text.split("\n")]


def _escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
