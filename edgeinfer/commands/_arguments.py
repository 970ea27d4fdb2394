"""The command line's arguments, and what must not be read in them by others."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from edgeinfer.commands._terminal import echo
from edgeinfer.guard.process_list import conceal, hold_secrets, masked
from edgeinfer.guard.redaction import remember
from edgeinfer.watchdog.early import PARENT

VARIABLE = "EDGEINFER_ARGUMENTS"
"""What a supervisor's child is called with, where that holds credentials: others can't read a process's environment."""


def taken(arguments: Sequence[str]) -> list[str]:
    """The arguments to run with. Credentials among them are known as such, and gone from the process list."""
    passed = os.environ.pop(VARIABLE, "")
    if passed and os.environ.get(PARENT) == str(os.getppid()):
        arguments = json.loads(passed)
    for argument in arguments:
        remember(argument)
    if hold_secrets(arguments) and not passed:
        _warn(conceal())
    return list(arguments)


def pass_on(arguments: Sequence[str]) -> list[str]:
    """The arguments for a child that is this command again, as the process list may show them."""
    if not hold_secrets(arguments):
        return list(arguments)
    os.environ[VARIABLE] = json.dumps(list(arguments))
    return [masked(argument) for argument in arguments]


def _warn(concealed: bool) -> None:
    seen = "was in the process list for a moment" if concealed else "is in the process list, for everybody here to read"
    echo(
        f"edgeinfer: warning: a password on the command line {seen}, and may be in the shell's history; "
        "write ${env:NAME} in its place, or give the source a password_file",
        err=True,
    )
