"""A child that has confined itself: what it can't have, and that it never outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

MEMORY = 96 << 20


def child(body: str, **limits: int) -> subprocess.CompletedProcess[str]:
    """What becomes of a process that confines itself, and then runs `body`."""
    arguments = ", ".join(f"{name}={value}" for name, value in {"parent": os.getpid(), **limits}.items())
    code = "import os, resource, sys\nfrom edgeinfer.guard.confine import confine\n"
    code += f"confine({MEMORY}, {arguments})\n" + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_memory_beyond_the_budget_is_an_error_within_the_child() -> None:
    done = child("bytearray(64 << 20); print('half')\ntry: bytearray(128 << 20)\nexcept MemoryError: print('refused')")
    assert done.stdout.split() == ["half", "refused"], done.stderr


def test_memory_that_is_never_freed_counts_together() -> None:
    done = child("""
        held = []
        try:
            while True:
                held.append(bytearray(1 << 20))
        except MemoryError:
            print(len(held))
        """)
    assert 64 < int(done.stdout) <= MEMORY >> 20


@pytest.mark.slow
def test_no_time_of_the_processor_beyond_the_budget() -> None:
    done = child("while True: pass", cpu_s=1)
    assert done.returncode in {-24, -9}  # SIGXCPU, SIGKILL


def test_no_file_beyond_the_budget_not_even_in_memory() -> None:
    done = child(
        "os.ftruncate(os.memfd_create('a'), 1 << 20); os.ftruncate(os.memfd_create('b'), 1 << 22)", file_bytes=1 << 21
    )
    assert "File too large" in done.stderr


def test_no_descriptor_beyond_the_budget() -> None:
    done = child("print(sum(1 for _ in [os.dup(0) for _ in range(8)])); [os.dup(0) for _ in range(99)]", descriptors=32)
    assert done.stdout.strip() == "8"
    assert "Too many open files" in done.stderr


def test_no_core_no_rights_and_the_first_to_go() -> None:
    done = child("""
        print(resource.getrlimit(resource.RLIMIT_CORE)[0] <= 1)
        print(open('/proc/self/oom_score_adj').read().strip())
        print([line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')])
        """)
    assert done.stdout.split() == ["True", "1000", "['1']"], done.stderr


def test_what_it_starts_is_confined_too() -> None:
    done = child("""
        import subprocess
        sys.exit(subprocess.run([sys.executable, '-c', 'bytearray(256 << 20)'], stderr=2).returncode)
        """)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_limits_are_never_raised() -> None:
    done = child(
        """
        before = resource.getrlimit(resource.RLIMIT_DATA)
        confine(1 << 40, parent=os.getppid(), descriptors=1 << 20)
        print(resource.getrlimit(resource.RLIMIT_DATA) == before, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        """,
        descriptors=50,
    )
    assert done.stdout.split() == ["True", "50"], done.stderr


def test_a_child_whose_parent_is_gone_ends_at_once() -> None:
    assert child("print('alive')", parent=1).stdout == ""


CHILD = """
import time
from edgeinfer.guard.confine import confine
confine(1 << 26, parent={parent})
print("confined", flush=True)
time.sleep(600)
"""
PARENT = """
import os, signal, subprocess, sys
code = {child!r}.format(parent=os.getpid())
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[{pipe}])
child.stdout.readline()
{end}
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)"])
def test_a_child_never_outlives_its_parent(end: str) -> None:
    """The grandchild holds the pipe open as long as it lives."""
    ours, theirs = os.pipe()
    code = PARENT.format(child=CHILD, pipe=theirs, end=end)
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs]):
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            assert pipe.read() == b""  # until the last of them is gone
