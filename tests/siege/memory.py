"""What the daemon and its processes hold, against what docs/limits.md allows them.

A frame is shared memory, and counts once: with the daemon. Everything else is private to its process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from edgeinfer.frames import Store
from edgeinfer.guard import limits

EVERY_S = 0.25
MIB = 1 << 20
ALLOWANCE_BYTES = 192 * MIB
"""For what a page of bounds can't count: libraries loaded on the way, heaps with holes, ZeroMQ's queues of peers."""
CHILD_BYTES = 64 * MIB
"""What a process starts with: the interpreter and the libraries of the one that it is forked from."""


def bound(name: str, without: int = 0) -> int:
    """A bound of the page, or `without` where there is none."""
    return int(getattr(limits, name, without))


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes. `private`: of its own; `shared`: memory for frames, and what else is shared."""

    private: int
    shared: int


@dataclass
class Peaks:
    """The most that was held at any time, in bytes, and how many processes there were."""

    daemon: int = 0
    frames: int = 0
    child: int = 0
    trial: int = 0
    children: int = 0
    together: int = 0
    samples: list[int] = field(default_factory=list)


def budget(baseline: int, trial_bytes: int) -> dict[str, int]:
    """Bytes that each may hold, by the name of its peak. `baseline` is the daemon's before the first attack.

    daemon: what it began with, pictures of files that are being decoded, what peers may have it keep, and an allowance;
    frames: all of them; child: what any of them starts with and may have beyond it; trial: a network that is tried.
    """
    peers = bound("MAX_PEERS", 256) * (bound("MAX_PEER_BYTES") + 2 * bound("RECEIVE_BUFFER_BYTES", 8192))
    return {
        "daemon": baseline + limits.MAX_DECODING_BYTES + peers + ALLOWANCE_BYTES,
        "frames": Store().limit,
        "child": CHILD_BYTES + limits.MAX_CHILD_BYTES,
        "trial": CHILD_BYTES + ALLOWANCE_BYTES + trial_bytes,
    }


def together(allowed: dict[str, int], children: int) -> int:
    """Bytes that the daemon and so many processes may hold."""
    return allowed["daemon"] + allowed["frames"] + allowed["trial"] + children * allowed["child"]


class Watch(threading.Thread):
    """Looks at the daemon and its processes from `start` to `close`. Remembers every process there was."""

    def __init__(self, pid: int) -> None:
        super().__init__(name="memory", daemon=True)
        self.peaks = Peaks()
        self.seen: set[psutil.Process] = set()
        self._daemon = psutil.Process(pid)
        self._closing = threading.Event()

    def run(self) -> None:
        while not self._closing.wait(EVERY_S):
            self._look()

    def close(self) -> None:
        """Ends it."""
        self._closing.set()
        self.join(10)

    def baseline(self) -> int:
        """Private bytes of the daemon now."""
        return held(self._daemon.pid).private

    def left(self) -> list[str]:
        """Processes of the daemon that have outlived it."""
        return sorted(str(process) for process in self.seen if _lives(process))

    def _look(self) -> None:
        try:
            children = self._daemon.children(recursive=True)
        except psutil.Error:
            return
        self.seen.update(children)
        own = held(self._daemon.pid)
        sizes = [(held(child.pid).private, _on_trial(child)) for child in children]
        peaks = self.peaks
        peaks.daemon, peaks.frames = max(peaks.daemon, own.private), max(peaks.frames, own.shared)
        peaks.children = max(peaks.children, len(children))
        peaks.child = max([peaks.child, *(size for size, trial in sizes if not trial)])
        peaks.trial = max([peaks.trial, *(size for size, trial in sizes if trial)])
        peaks.samples.append(own.private + own.shared + sum(size for size, _ in sizes))
        peaks.together = max(peaks.together, peaks.samples[-1])


def held(pid: int) -> Held:
    """What a process holds; nothing where it has gone."""
    found = {"RssAnon": 0, "RssShmem": 0}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return Held(0, 0)
    for line in lines:
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) << 10
    return Held(found["RssAnon"], found["RssShmem"])


def _on_trial(child: psutil.Process) -> bool:
    """Whether it tries a network, and reads no camera: it is neither forked for one nor what those are forked from."""
    try:
        return "isolation" not in " ".join(child.cmdline())
    except psutil.Error:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def until_gone(watch: Watch, patience_s: float) -> list[str]:
    """Those that are still there after so long."""
    end = time.monotonic() + patience_s
    while (left := watch.left()) and time.monotonic() < end:
        time.sleep(0.1)
    return left
