"""A GStreamer pipeline in a process of its own, which may hang or crash without harm.

Run as a file, by any Python from 3.9 on; it needs PyGObject and nothing else, neither edgeinfer nor numpy. The
parent's end of the talk is `_gst_process.py`.

It talks as `isolation/talk.py` says, over the socket whose number is its last argument. `open` describes the pipelines
to try; a `picture` is told with its stride, format, age and time stamp, and there may be `none` yet.

However the talk ends, the pipeline is stopped before the process ends: a CSI camera whose process is killed instead may
be refused to everybody until nvargus-daemon is started again. No call into GStreamer lasts for ever: the kernel ends
the process by SIGALRM where one does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

CALL_S = 20.0
"""A read that lasts so long never ends. Whoever reads gives up earlier."""
PARENT_S = 1.5
"""After SIGTERM the parent has so long to end the talk: systemd sends it to both, and frames are on their way."""
TICK_S = 0.2


class Leaving:
    """Whether the process has been asked to end: SIGTERM, and SIGABRT, which systemd's watchdog sends to all."""

    def __init__(self) -> None:
        self.at_s: float | None = None
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGABRT):
            signal.signal(number, self.ask)

    def ask(self, *_: object) -> None:
        """The handler of both."""
        self.at_s = self.at_s or time.monotonic() + PARENT_S

    def check(self) -> None:
        """Raises EOFError once it is time."""
        if self.at_s is not None and time.monotonic() >= self.at_s:
            raise EOFError


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """The kernel ends the process where this takes longer, whatever hangs."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Memory:
    """Memory that the parent has lent for pictures. `hear` is how it is listened to."""

    def __init__(self, peer: socket.socket, hear: Hear | None = None) -> None:
        self.peer = peer
        self.hear = hear or receive
        self.maps: dict[int, mmap.mmap] = {}
        self.free: list[int] = []

    def take_back(self, order: dict[str, Any]) -> None:
        """What the parent does not use any more."""
        self.free += order.get("free", ())

    def given_up(self, keep: int) -> list[int]:
        """Takes leave of all free blocks but so many."""
        dropped = self.free[: max(0, len(self.free) - keep)]
        for number in dropped:
            self.maps.pop(number).close()
            self.free.remove(number)
        return dropped

    def write(self, data: Any) -> int | None:
        """Puts a picture into a block. Returns its number, None where there is no room for it now."""
        size = len(data)
        fitting = [number for number in self.free if len(self.maps[number]) == size] or self.borrow(size)
        for number in fitting:
            self.maps[number][:] = data
            self.free.remove(number)
            return number
        return None

    def borrow(self, size: int) -> list[int]:
        """Another block, where the parent lends one."""
        send(self.peer, {"need": size, "drop": self.given_up(0)})
        answer, descriptors = self.hear(self.peer)
        self.take_back(answer)
        if "lend" not in answer:
            return []
        self.maps[answer["lend"]] = mmap.mmap(descriptors[0], size)
        self.free.append(answer["lend"])
        os.close(descriptors[0])
        return [answer["lend"]]


def send(peer: socket.socket, message: dict[str, Any]) -> None:
    """One answer. Raises EOFError where nobody hears it."""
    try:
        peer.send(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        raise EOFError from None


def receive(peer: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What the parent says next, with descriptors. Raises EOFError at the end."""
    try:
        data, descriptors, _, _ = socket.recv_fds(peer, 1 << 16, 1)
    except ConnectionResetError:
        raise EOFError from None
    if not data:
        raise EOFError
    return json.loads(data), descriptors


Hear = Callable[[socket.socket], "tuple[dict[str, Any], list[int]]"]


def gone(peer: socket.socket) -> bool:
    """Whether the parent has ended the talk, or has ended itself."""
    return bool(select.select([peer], [], [], 0)[0]) and not peer.recv(1, socket.MSG_PEEK)


def alone(name: str, seconds: float, go_on: Callable[[], None]) -> socket.socket | None:
    """What nobody else has as long as it is open: waits for one who is about to leave, for so long at most.

    The kernel frees the name when the process ends, however that happens. It is an abstract socket's (unix(7)).
    """
    until_s = time.monotonic() + seconds
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        try:
            held.bind(f"\0{name}")
        except OSError:
            if time.monotonic() > until_s:
                held.close()
                return None
        else:
            return held
        go_on()
        time.sleep(TICK_S / 2)


def load(path: str) -> Any:
    """A module of edgeinfer's, which this Python may not find by its name."""
    found = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)  # noqa: PTH119 (a text)
    assert found is not None and found.loader is not None  # noqa: S101, PT018 (for mypy)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def confine(spec: dict[str, Any]) -> None:
    """Takes on the limits that the parent wants for us, by its own code."""
    module = load(spec["confine"])
    if spec["memory_bytes"] is None:
        module.die_with(spec["parent"], signal.SIGTERM)
    else:
        module.confine(spec["memory_bytes"], parent=spec["parent"], death_signal=signal.SIGTERM)


class Service:
    """One parent, served to the end of the talk."""

    def __init__(self, peer: socket.socket, spec: dict[str, Any], leaving: Leaving, parts: Any) -> None:
        """`parts` is the module that makes pipelines."""
        self.peer, self.spec, self.leaving, self.parts = peer, spec, leaving, parts
        self.pipeline: Any = None
        self.held: socket.socket | None = None

    def hear(self, peer: socket.socket) -> tuple[dict[str, Any], list[int]]:
        """What the parent says next. Raises EOFError where it is time to leave."""
        self.leaving.check()
        while not select.select([peer], [], [], TICK_S)[0]:
            self.leaving.check()
        return receive(peer)

    def go_on(self) -> None:
        """Raises EOFError where nobody waits for a start any more."""
        self.leaving.check()
        if gone(self.peer):
            raise EOFError

    def serve(self) -> None:
        """Raises EOFError at the end, and what goes wrong."""
        memory = Memory(self.peer, self.hear)
        if self.spec["alone"]:  # the process of a daemon before ours may still be stopping the camera
            self.held = alone(self.spec["alone"], self.spec["leave_s"], self.go_on)
        with within(self.spec["start_s"] + CALL_S):
            self.pipeline = self.parts.ChildPipeline(self.parts.import_gst(), self.spec, memory)
            self.pipeline.start(self.spec["start_s"], self.go_on)
        send(self.peer, {"opened": {"live": self.pipeline.live, "fps": 0}})
        while True:
            memory.take_back(self.hear(self.peer)[0])
            with within(CALL_S):
                sample = self.pipeline.pull()
            send(self.peer, self.pipeline.answer(sample))

    def stop(self) -> None:
        """Stops what plays, in good order or not at all."""
        if self.pipeline is not None:
            with within(self.spec["leave_s"]):
                self.pipeline.stop()


def main() -> None:
    """Serves one parent to the end."""
    leaving = Leaving()
    peer = socket.socket(fileno=int(sys.argv[-1]))
    peer.set_inheritable(False)  # what GStreamer starts must not keep the talk open
    spec = receive(peer)[0]["open"]
    confine(spec)
    parts = load(spec["pipeline"])
    service = Service(peer, spec, leaving, parts)
    with contextlib.suppress(EOFError):
        try:
            service.serve()
        except parts.Trouble as trouble:
            send(peer, trouble.answer(spec))
        except EOFError:
            raise
        except Exception as error:
            send(peer, parts.Trouble(f"{type(error).__name__}: {error}").answer(spec))
    service.stop()
    peer.close()
    os._exit(0)  # GStreamer's threads may hang, and Python would wait for them


if __name__ == "__main__":
    main()
