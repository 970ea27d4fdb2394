"""What this process and its children take: processor time, memory and threads, from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
BUSY_LOOK_S = 1.0
"""Looking takes milliseconds, which the daemon lacks where there is but one core."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory in bytes, what processes share counted in parts (PSS), and threads, of all processes together."""

    memory: int
    threads: int
    processes: int


class Growth:
    """How much sources add to a daemon that waits for them: `look` is called again and again.

    `idle` says that nothing has begun yet, `warm` that enough results have come.
    """

    def __init__(
        self,
        family: Family,
        idle: Callable[[], bool],
        warm: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family, self._is_idle, self._is_warm, self._clock = family, idle, warm, clock
        self._idle: Footprint | None = None
        self._busy: Footprint | None = None
        self._next_s = 0.0

    def look(self, last: bool = False) -> None:
        """Takes a look where it is time for one: while nothing has begun, every second after the warm-up, and last."""
        now = self._clock()
        if self._is_idle():
            seen = self._family.footprint()
            self._idle = seen if self._is_idle() else self._idle  # a source may have been opened meanwhile
        elif self._is_warm() and (last or now >= self._next_s):
            seen, self._next_s = self._family.footprint(), now + BUSY_LOOK_S
            self._busy = seen if self._busy is None or seen.memory > self._busy.memory else self._busy

    def memory_mb(self, sources: int) -> float | None:
        """Megabytes for each source; None where there was no time to look, or other memory went back meanwhile."""
        if self._idle is None or self._busy is None or self._busy.memory < self._idle.memory:
            return None
        return round((self._busy.memory - self._idle.memory) / sources / 1e6, 1)

    def threads(self, sources: int) -> float | None:
        """Threads for each source; None as above."""
        if self._idle is None or self._busy is None or self._busy.threads < self._idle.threads:
            return None
        return round((self._busy.threads - self._idle.threads) / sources, 1)


class Family:
    """A process and all below it.

    `root` is where /proc is looked for.
    """

    def __init__(self, pid: int | None = None, root: Path = Path("/")) -> None:
        self._pid, self._proc = os.getpid() if pid is None else pid, root / "proc"

    def footprint(self) -> Footprint:
        """What they take now. Some milliseconds of work."""
        members = self.members()
        memory = sum(self._memory(pid) for pid in members)
        return Footprint(memory, sum(int(fields[17]) for fields in members.values()), len(members))

    def children_cpu_s(self) -> float:
        """Processor time of all but the first, those included that have ended and been waited for."""
        members = self.members()
        spent = sum(int(part) for pid, fields in members.items() if pid != self._pid for part in fields[11:15])
        waited_for = sum(map(int, members.get(self._pid, _NOTHING)[13:15]))
        return (spent + waited_for) / TICKS_PER_S

    def members(self) -> dict[int, list[str]]:
        """Process → its fields in /proc/PID/stat from the third on, the state."""
        everybody = dict(self._everybody())
        below: dict[int, list[int]] = {}
        for pid, fields in everybody.items():
            below.setdefault(int(fields[1]), []).append(pid)
        found, waiting = dict[int, list[str]](), [self._pid]
        while waiting:
            pid = waiting.pop()
            if pid in everybody:
                found[pid] = everybody[pid]
                waiting += below.get(pid, [])
        return found

    def _everybody(self) -> Iterator[tuple[int, list[str]]]:
        for entry in self._proc.iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    text = (entry / "stat").read_text(errors="replace")
                    yield int(entry.name), text.rpartition(")")[2].split()

    def _memory(self, pid: int) -> int:
        """PSS; resident memory where the kernel does not tell us that."""
        with contextlib.suppress(OSError):
            for line in (self._proc / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) << 10
        with contextlib.suppress(OSError, IndexError):
            return int((self._proc / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0


_NOTHING = ["0"] * 50
