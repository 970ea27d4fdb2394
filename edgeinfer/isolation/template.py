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
from edgeinfer.errors import ConfigError, EdgeinferError
from edgeinfer.guard.confine import confine, die_with
from edgeinfer.guard.limits import MAX_CHILD_DESCRIPTORS
from edgeinfer.isolation import talk
from edgeinfer.isolation.errors import to_plain
from edgeinfer.isolation.inside import serve

LEAVE_S = 1.0
"""Children learn of the parent's end as we do, and get so long to take leave of their cameras."""
WAIT_S = 0.5


def main() -> None:
    """Serves one parent. The last argument is the number of our end of the talk."""
    control = socket.socket(fileno=int(sys.argv[-1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when it is over
    with contextlib.suppress(talk.Gone, talk.Nonsense):
        talk.send(control, {"ready": True})
        while True:
            order, descriptors = talk.receive(control, None)
            talk.send(control, {"id": order["id"], **_obeyed(control, order, descriptors)})
    time.sleep(LEAVE_S)


def _obeyed(control: socket.socket, order: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """The answer to an order. What fails is told, and harms no child that there is."""
    try:
        return {"pid": _fork(control, order, *descriptors)} if "fork" in order else {"status": _end(order["end"])}
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    finally:
        talk.close(descriptors)


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
        _live(socket.socket(fileno=descriptor), order["memory_bytes"], parent)
    return pid


def _live(peer: socket.socket, memory_bytes: int, parent: int) -> NoReturn:
    """A child's life, at the head of a session of its own: what it starts ends with it."""
    code = 1
    try:
        die_with(parent)  # before it leaves our group: the whole of that is killed where we hang
        os.setsid()
        try:
            confine(memory_bytes, parent=parent, file_bytes=0, descriptors=MAX_CHILD_DESCRIPTORS)
        except (OSError, ValueError) as error:
            hint = "isolated: false reads the source in a thread"
            talk.send(peer, to_plain(ConfigError(f"its process can't be held to its limits here: {error}", hint)))
        else:
            serve(peer)
        code = 0
    finally:
        os._exit(code)  # nothing of the template's is the child's to clean up, and a library's thread may hang


def _end(pid: int) -> int | None:
    """Ends a child that may have ended already, and all that it has started.

    Its exit status as `waitpid` gives it, None where it does not end.
    """
    end = time.monotonic() + WAIT_S
    while True:
        for kill in (os.killpg, os.kill):  # the first finds nobody while the child has no session yet
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > end:
            return None  # it hangs in the kernel
        time.sleep(0.002)
