"""How many may be connected, and how fast somebody is let in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edgeinfer.guard import descriptors
from edgeinfer.guard.limits import ADMISSIONS, MAX_OWNERS, MAX_PEERS, MAX_STRANGERS

ADMISSION_S = 0.02
SLOW_ADMISSION_S = 0.25
DISGRACE_S = 10.0
PATIENCE_S = 4.0
"""Who would wait for longer is not answered: the handshake has a deadline."""


class Places(NamedTuple):
    """How many connections there may be: those that have subscribed, and those that have not yet."""

    peers: int
    strangers: int


def places() -> Places:
    """As many as the descriptors of this process allow, which others (cameras, files) need too."""
    limit = descriptors.limit()
    free = limit - descriptors.used() - min(64, limit // 4)
    strangers = max(2, min(MAX_STRANGERS, free // 3))
    return Places(max(2, min(MAX_PEERS, free - strangers)), strangers)


@dataclass(slots=True)
class _Line:
    """When the next one in this line may come in, and until when they come slowly."""

    next_s: float = 0.0
    slow_until_s: float = 0.0


class Pace:
    """How long each owner, a key or an address, has to wait at the door. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def wait_s(self, owner: str) -> float | None:
        """Seconds until this one may come in, who then has a place in the line; None where there is none."""
        with self._lock:
            now = self._clock()
            line = self._line(owner)
            is_slow = now < line.slow_until_s
            step_s, burst = (SLOW_ADMISSION_S, 1) if is_slow else (ADMISSION_S, ADMISSIONS)
            next_s = max(line.next_s, now)
            wait_s = next_s - now - (burst - 1) * step_s
            if wait_s > PATIENCE_S:
                return None
            line.next_s = next_s + step_s
            return max(0.0, wait_s)

    def slow_down(self, owner: str) -> None:
        """After a flood of somebody's, all who come under the same key or from the same address wait in line."""
        with self._lock:
            self._line(owner).slow_until_s = self._clock() + DISGRACE_S

    def _line(self, owner: str) -> _Line:
        line = self._lines.pop(owner, None) or _Line()
        self._lines[owner] = line
        if len(self._lines) > MAX_OWNERS:
            del self._lines[next(iter(self._lines))]
        return line
