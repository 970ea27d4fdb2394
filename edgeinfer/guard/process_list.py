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

from edgeinfer.guard.credentials import is_secret, names_a_file, secret_spans

_AFTER = re.compile(
    r"(?<![\w.-])([\w.-]{1,128})[\"']?\s?[:=]\s{0,64}"
    r"(?=(\"(?:[^\"\\]|\\.){0,4096}|'[^']{0,4096}|[\[{].{0,4096}|(?:\$\{env:\w+\}|[^,\]}\n]){1,4096}))",
    re.DOTALL,
)
"""A key and its value, also within a mapping in YAML: all that may belong to the value, and rather too much."""
_HEADER = re.compile(
    r"(?i)\bauthorization[\"']?\s?[:=]\s?[\"']?(?:\(string\))?\s?((?:basic|bearer|digest)?)([^\"'\r\n]+)"
)
_FILE = re.compile(r"(?:--set=)?http\.(?:token|tls\.key)=(.*)")
"""Settings that name files, though they are called as secrets are."""
_ENVIRONMENT = re.compile(r"\$\{env:\w+\}")


def masked(argument: str) -> str:
    """The argument with `*` for each byte of credentials in it."""
    if (named := _FILE.fullmatch(argument)) and names_a_file(named[1]):
        return argument
    spans = [*secret_spans(argument), *(found.span(2) for found in _AFTER.finditer(argument) if _tells(found))]
    spans += [found.span(2) for found in _HEADER.finditer(argument) if _left(found[2])]
    secret = {place for start, end in spans for place in range(start, end)}
    return "".join(
        "*" * len(os.fsencode(letter)) if place in secret else letter for place, letter in enumerate(argument)
    )


def _tells(found: re.Match[str]) -> bool:
    """Whether the value is the secret of its key; `secret_key` names a file, and `${env:NAME}` is none."""
    value = _left(found[2])
    return (
        bool(value)
        and found[1].lower() != "authorization"
        and any(is_secret(part, value) for part in found[1].lstrip("-").split("."))
    )


def _left(value: str) -> str:
    return _ENVIRONMENT.sub("", value).strip("'\"[{ !&|>*")


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
