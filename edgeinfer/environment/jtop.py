"""jetson-stats, where it is installed: one more reading of what a Jetson is, from its service.

It is under the AGPL and starts threads, so that it is imported in a child process alone (`jtop_child.py`), and only
where its service has a socket that we may use. What it says comes last: it reads the same files as we do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeinfer.environment import live
from edgeinfer.environment.facts import Fault, Note
from edgeinfer.environment.tree import Tree

CHILD = Path(__file__).with_name("jtop_child.py")
SOCKET = Path("/run/jtop.sock")
NAME = "jetson-stats"
TIMEOUT_S = 10.0
"""The service answers once a second."""
_FACTS = {
    "jetpack": ("Jetpack", r"\d+\.\d+.*"),
    "l4t": ("L4T", r"\d+\.\d+.*"),
    "board": ("Model", r".+"),
    "module": ("P-Number", r"p\d{4}-\d{4}"),
    "soc": ("SoC", r"tegra\d+"),
    "compute_capability": ("CUDA Arch BIN", r"\d+\.\d+"),
}
"""Our fact → its name for it, and the form of a value: it has empty texts and words for what it does not know."""


def installed() -> bool:
    """Whether this Python could import it. Imports nothing."""
    return importlib.util.find_spec("jtop") is not None


def obstacle(socket: Path = SOCKET) -> str:
    """Why its service can't be asked, in words; empty where it can be."""
    try:
        kind = socket.stat().st_mode
    except OSError:
        return f"its service is not running: there is no {socket}"
    if not stat.S_ISSOCK(kind):
        return f"{socket} is no socket"
    if not os.access(socket, os.R_OK | os.W_OK):
        return f"this user may not use {socket}, which is its group's"
    return ""


def command(mode: str) -> list[str]:
    """Starts the child, which takes this interpreter's `sys.path` as a line of JSON on stdin.

    mode: "once" or "stream".
    """
    return [sys.executable, "-I", str(CHILD), mode]


def read(tree: Tree, run: live.Run = live.run, socket: Path = SOCKET) -> Iterator[Note]:
    """Yields jetpack, l4t, board, module, soc, compute_capability and power_mode; notes in `tree` why it could not."""
    if not installed():
        return
    if why := obstacle(socket):
        tree.faults.append(Fault(NAME, why))
        return
    try:
        output = run(command("once"), json.dumps(sys.path) + "\n", TIMEOUT_S)
    except OSError as error:
        tree.faults.append(Fault(NAME, f"can't start {sys.executable}: {error.strerror}"))
        return
    answer = _answer(output.stdout)
    if "fault" in answer or not answer:
        tree.faults.append(Fault(NAME, str(answer.get("fault", "its service gave no answer in time"))))
        return
    yield from _notes(answer)


def _answer(text: str) -> dict[str, Any]:
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # cut short, or printed by a start-up hook of this Python
        if isinstance(answer, dict):
            return answer
    return {}


def _notes(answer: dict[str, Any]) -> Iterator[Note]:
    source = f"jtop of {NAME} {answer.get('version', '')}".strip()
    hardware = answer.get("hardware")
    for field, (name, form) in _FACTS.items():
        value = hardware.get(name) if isinstance(hardware, dict) else None
        if isinstance(value, str) and re.fullmatch(form, value):
            yield Note(field, value, source)
    mode = answer.get("power_mode")
    if isinstance(mode, str) and mode:
        yield Note("power_mode", mode, source)
