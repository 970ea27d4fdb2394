"""Log lines as journal entries, with fields to filter by: `journalctl -u edgeinfer EDGEINFER_SOURCE=front`.

Only where standard error is the journal already (systemd says so in JOURNAL_STREAM), and then instead of it, so that
no line is there twice. Without systemd-python the lines stay lines and carry their priority in front (sd-daemon(3)).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from edgeinfer.guard.printable import indented, printable

Send = Callable[..., Any]
IDENTIFIER = "edgeinfer"
OWN_FIELDS = ("EDGEINFER_SOURCE", "EDGEINFER_EVENT")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Python's levels as those of syslog(3); what is lower is debug."""


def fields(source: str | None = None, event: str | None = None) -> dict[str, str]:
    """`extra=` for a log call: which source it speaks of, and a short code for what happened."""
    given = {"EDGEINFER_SOURCE": source, "EDGEINFER_EVENT": event}
    return {name: value for name, value in given.items() if value}


def is_stderr(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether standard error is a pipe to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def handler() -> logging.Handler | None:
    """The handler to log with where standard error is the journal, None elsewhere."""
    if not is_stderr():
        return None
    try:
        from systemd.journal import send  # noqa: PLC0415 (optional)
    except ImportError:
        lines = logging.StreamHandler()
        lines.setFormatter(PriorityFormatter())
        return lines
    return JournalHandler(send)


class JournalHandler(logging.Handler):
    """Hands records to `send` (systemd.journal.send): their text and the fields of `entry`, no arguments, no locals."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one entry."""
        try:
            self._send(text_of(record), **entry(record))
        except Exception:  # as logging's own handlers do
            self.handleError(record)


class PriorityFormatter(logging.Formatter):
    """`<4>message`, every line of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as lines that the journal reads the priority from."""
        prefix = f"<{priority(record.levelno)}>"
        return "\n".join(prefix + line for line in text_of(record).splitlines())


def text_of(record: logging.LogRecord) -> str:
    """The message, and the traceback where there is one; without credentials."""
    lines = [printable(record.getMessage())]
    if record.exc_info and record.exc_info[1] is not None:
        lines += indented(record.exc_info[1])
    return "\n".join(lines)


def entry(record: logging.LogRecord) -> dict[str, str | int]:
    """The journal's fields for a record (systemd.journal-fields(7)), and ours."""
    own: dict[str, str] = {
        name: printable(str(record.__dict__[name])) for name in OWN_FIELDS if name in record.__dict__
    }
    return {
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "THREAD_NAME": record.threadName or "",
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName or "",
        **own,
    }


def priority(level: int) -> int:
    """syslog's number for one of Python's levels."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)
