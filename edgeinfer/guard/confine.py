"""Limits that a child process takes on before it touches what others made: memory, time, files, and its parent's life.

It needs nothing but the standard library, and any Python from 3.9 on, so that a child may also load it by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
WORST = 1000
"""oom_score_adj(5): the kernel ends this process before any other."""


def confine(
    memory_bytes: int | None,
    *,
    parent: int,
    cpu_s: int | None = None,
    file_bytes: int | None = None,
    descriptors: int | None = None,
    oom_score_adj: int = WORST,
    death_signal: int = signal.SIGKILL,
) -> None:
    """Confines the process that calls it, for good, with all that it will start. Before it starts a thread.

    memory_bytes: private memory beyond what it holds now; more is ENOMEM, which is a MemoryError in Python and
    std::bad_alloc in C++. Shared memory does not count, but for files: see `file_bytes`. A thread's stack counts whole.
    parent: the pid that started it; this process gets `death_signal` when the thread that did so ends, and ends now if
    it has.
    cpu_s: seconds of processor, of all threads together; SIGXCPU afterwards, SIGKILL a second later.
    file_bytes: the largest file that it may write, shared memory (memfd) included; more is EFBIG.
    descriptors: the most that may be open at once. None leaves a limit as it is; none is ever raised.
    """
    die_with(parent, death_signal)
    if memory_bytes is not None:
        _lower(resource.RLIMIT_DATA, _private_bytes() + memory_bytes)
    # 1, not 0: a program that the kernel pipes core files to (systemd-coredump) gets them despite a limit of 0.
    _lower(resource.RLIMIT_CORE, 1)
    if cpu_s is not None:
        _lower(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    if file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, file_bytes)
    if descriptors is not None:
        _lower(resource.RLIMIT_NOFILE, descriptors)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    with contextlib.suppress(OSError):  # /proc is mounted read-only in some containers
        Path("/proc/self/oom_score_adj").write_text(str(oom_score_adj), encoding="ascii")


def die_with(parent: int, death_signal: int = signal.SIGKILL) -> None:
    """Has the kernel send this process a signal when the thread that started it ends; where it has, it ends now."""
    _prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(75)


def _lower(which: int, soft: int, hard: int | None = None) -> None:
    """Sets a limit, both values of it; where it is lower already it stays."""
    old_soft, old_hard = resource.getrlimit(which)
    new_hard = _least(soft if hard is None else hard, old_hard)
    resource.setrlimit(which, (_least(_least(soft, old_soft), new_hard), new_hard))


def _least(wanted: int, old: int) -> int:
    return wanted if old == resource.RLIM_INFINITY else min(wanted, old)


def _private_bytes() -> int:
    """What RLIMIT_DATA counts: private writable memory, touched or not (VmData in proc(5))."""
    with Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    raise OSError("the kernel does not say how much memory this process has")


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
