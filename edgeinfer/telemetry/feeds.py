"""Which feeds there are, and what they add: only what no file said, with a word of where it came from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET, structs

from edgeinfer.environment import jtop
from edgeinfer.environment.tree import Tree
from edgeinfer.messages import MachineVitals
from edgeinfer.telemetry.feed import Answer, Feed

NVML_CHILD = Path(__file__).with_name("nvml_child.py")
FIELDS = ("temperatures_c", "gpu_load", "gpu_hz", "power_mode", "power_mw")
"""Those that a feed may fill in."""


def usual(tree: Tree) -> list[Feed]:
    """Those that this machine may have; of a captured tree none. Starts nothing."""
    if not tree.is_live:
        return []
    feeds = []
    if tree.exists("proc/driver/nvidia/version") or tree.exists("dev/nvidiactl"):
        feeds.append(Feed("NVML", [sys.executable, "-I", str(NVML_CHILD)], lambda: ""))
    if jtop.installed():
        feeds.append(Feed(jtop.NAME, jtop.command("stream"), jtop.obstacle))
    return feeds


def complete(machine: MachineVitals, feeds: Iterable[Feed], now_s: float) -> MachineVitals:
    """The machine with what the feeds know beside it. A feed is not begun while nothing is missing."""
    for feed in feeds:
        missing = [field for field in FIELDS if getattr(machine, field) is UNSET]
        answer = feed.read(now_s) if missing or feed.running else None
        if answer is not None:
            machine = _filled(machine, missing, answer, f"{feed.name} {answer.version}".strip())
    return machine


def _filled(machine: MachineVitals, missing: Iterable[str], answer: Answer, origin: str) -> MachineVitals:
    values: Mapping[str, Any] = structs.asdict(answer)
    found = {field: values[field] for field in missing if values[field] not in (None, {})}
    if not found:
        return machine
    origins = {} if machine.origins is UNSET else machine.origins
    return structs.replace(machine, **found, origins={**origins, **dict.fromkeys(found, origin)})
