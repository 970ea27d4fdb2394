"""Credentials among this process's arguments, which every user of the machine can read in the process list.

The kernel shows the arguments where it put them when the process began (proc(5), /proc/PID/cmdline), in memory that is
the process's own: they are overwritten there, each by as many asterisks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path

from edgeinfer.guard.credentials import is_secret_key, secret_spans

_OVERRIDE = re.compile(r"(?:--set=)?([\w.-]+)=(.+)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\$\{env:\w+\}")


def masked(argument: str) -> str:
    """The argument with `*` for each byte of credentials in it."""
    spans = secret_spans(argument)
    override = _OVERRIDE.fullmatch(argument)
    if override and any(map(is_secret_key, override[1].split("."))) and _ENVIRONMENT.sub("", override[2]).strip("'\""):
        spans.append(override.span(2))
    secret = {place for start, end in spans for place in range(start, end)}
    return "".join(
        "*" * len(os.fsencode(letter)) if place in secret else letter for place, letter in enumerate(argument)
    )


def hold_secrets(arguments: Sequence[str]) -> bool:
    """Whether any of them holds credentials."""
    return any(masked(argument) != argument for argument in arguments)


def conceal() -> bool:
    """Overwrites credentials among the arguments. Whether the process list shows none of them any more."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        start, end = _place()
        shown = Path("/proc/self/cmdline").read_bytes()
        if end - start != len(shown) or ctypes.string_at(start, end - start) != shown:
            return False
        parts = [os.fsencode(masked(os.fsdecode(part))) for part in shown.split(b"\0")]
        ctypes.memmove(start, b"\0".join(parts), len(shown))
        return Path("/proc/self/cmdline").read_bytes() == b"\0".join(parts)
    return False


def _place() -> tuple[int, int]:
    """Where the arguments begin and end: arg_start and arg_end of /proc/PID/stat (proc(5), fields 48 and 49)."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if not 0 < start < end:
        raise ValueError(start, end)
    return start, end
