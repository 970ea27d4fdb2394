"""The process that sources' processes are forked from, with their libraries loaded once for all of them.

It has one thread and touches nothing that comes from outside. It ends when its parent does, and its children with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from edgeinfer.config import plugins
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.confine import confine
from edgeinfer.guard.limits import MAX_CHILD_DESCRIPTORS
from edgeinfer.isolation import talk
from edgeinfer.isolation.inside import serve

LEAVE_S = 1.0
"""Children learn of the parent's end as we do, and get so long to take leave of their cameras."""
WAIT_S = 1.0


def main() -> None:
    """Serves one parent. The last argument is the number of our end of the talk."""
    control = socket.socket(fileno=int(sys.argv[-1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when it is over
    with contextlib.suppress(talk.Gone, talk.Nonsense):
        while True:
            order, descriptors = talk.receive(control, None)
            if "fork" in order:
                talk.send(control, {"pid": _fork(control, order, *descriptors)})
            else:
                talk.send(control, {"status": _end(order["end"])})
    time.sleep(LEAVE_S)


def _fork(control: socket.socket, order: dict[str, Any], descriptor: int) -> int:
    """A new child for the other end of `descriptor`."""
    if "." not in order["fork"]:  # others may start threads
        with contextlib.suppress(EdgeinferError):  # the child says what is wrong
            plugins.load("sources", order["fork"])
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it marks
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _live(descriptor, order["memory_bytes"], parent)
    os.close(descriptor)
    return pid


def _live(descriptor: int, memory_bytes: int, parent: int) -> NoReturn:
    """A child's life."""
    code = 1
    try:
        confine(memory_bytes, parent=parent, file_bytes=0, descriptors=MAX_CHILD_DESCRIPTORS)
        serve(socket.socket(fileno=descriptor))
        code = 0
    finally:
        os._exit(code)  # nothing of the template's is the child's to clean up, and a library's thread may hang


def _end(pid: int) -> int | None:
    """Ends a child that may have ended already. Its exit status as `waitpid` gives it, None where it does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if found:
            return status
        time.sleep(0.002)
    return None  # it hangs in the kernel
