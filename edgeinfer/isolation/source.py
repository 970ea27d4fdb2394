"""A source that lives in a process of its own, as the rest of the daemon sees it."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edgeinfer import frames
from edgeinfer.codes import CAPTURE_CLOCKS
from edgeinfer.errors import CameraError, StalledError
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.guard.printable import printable
from edgeinfer.isolation import portrait, talk
from edgeinfer.isolation.errors import from_plain, too_many
from edgeinfer.isolation.lender import Lender
from edgeinfer.isolation.nursery import nursery
from edgeinfer.isolation.talk import whole
from edgeinfer.types import Capture, DecoderChoice

OPEN_S = 25.0
"""Longer than connecting may take, `connect_s`."""
LEAVE_S = 1.0
"""So long a process may take leave of its camera."""
MAX_TIME_NS = MAX_SIZE = 1 << 62
MIN_FPS, MAX_FPS = 1 / 3600, 1e6
"""A rate beyond these is none."""
MAX_WORDS = 200
"""Characters of a decoder's name, and of why it was taken."""
MAX_NEEDS = 20
"""In one answer: a source makes a few pictures to give one."""


class Process(Protocol):
    """What runs the other side of the talk. `peer` is our end of it."""

    @property
    def pid(self) -> int: ...

    @property
    def peer(self) -> socket.socket: ...

    def end(self) -> str:
        """Ends it, however it is. Returns how it had ended where that was no wish of ours, in words."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be opened: the arguments of a source plugin's `open`."""

    plugin: str
    uri: str
    options: msgspec.Struct

    def to_plain(self, instead: str = "") -> dict[str, Any]:
        """As the process reads it. `instead`: why it can't be decoded where it was tried first."""
        told = {"plugin": self.plugin, "uri": self.uri, "options": msgspec.json.encode(self.options).decode()}
        return {**told, "instead": instead} if instead else told


Patience = Callable[[float], float]
"""Frames per second that a source says it gives → seconds that a read of it may take."""


def open_isolated(
    order: Order, what: str, patience_s: Patience, memory_bytes: int | None = None, instead: str = ""
) -> IsolatedSource:
    """A source, opened in a process of its own. `what` is the source as errors call it.

    Where it is live, the process is ended when a read takes longer than `patience_s`; `memory_bytes` are its own beyond
    what it starts with. `instead`: see `Order.to_plain`. Raises what the plugin raises, CameraError where its process
    ends or hangs, and TemporaryError where none can be had now.
    """
    return IsolatedSource(nursery.fork(order.plugin, memory_bytes), order.to_plain(instead), what, patience_s)


class IsolatedSource:
    """See `Source`. Its pictures lie in memory that is shared with the process, which is ended whatever it does.

    `decoder`: see `Decoding`; it is there where the source over there has one.
    """

    decoder: DecoderChoice

    def __init__(
        self,
        process: Process,
        order: dict[str, Any],
        what: str,
        patience_s: Patience,
        open_s: float | None = None,
    ) -> None:
        """Opening may take `open_s`, OPEN_S where it is None."""
        self._process, self._what = process, what
        self._lender = Lender(frames.store)
        self.live, self._ended = False, False
        try:
            self.live, self.fps = self._open(order, OPEN_S if open_s is None else open_s)
        except BaseException:
            self.close()
            raise
        self._patience_s = patience_s(self.fps) if self.live else None

    def _open(self, order: dict[str, Any], open_s: float) -> tuple[bool, float]:
        opened = self._ask({"open": order}, open_s).get("opened")
        with self._guarded():
            if not isinstance(opened, dict) or not isinstance(opened.get("fps"), int | float):
                raise talk.Nonsense("it was to be opened")
            if (choice := _decoder(opened.get("decoder"))) is not None:
                self.decoder = choice
            fps = float(opened["fps"])
            return bool(opened.get("live")), fps if MIN_FPS <= fps <= MAX_FPS else 0.0

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def read(self) -> Capture | None:
        """See `Source.read`."""
        answer = self._ask({"read": True}, self._patience_s)
        if "end" in answer:
            return None
        with self._guarded():
            return self._capture(answer)

    def close(self) -> None:
        """See `Source.close`. No process outlives this, unless it hangs in the kernel."""
        if not self._ended:
            self._take_leave()
            self._end()

    def _capture(self, answer: dict[str, Any]) -> Capture:
        """What an answer shows. Raises talk.Nonsense."""
        if str(answer.get("clock")) not in CAPTURE_CLOCKS:
            raise talk.Nonsense("no such clock")
        t_ns = whole(answer, "t_ns", 0, MAX_TIME_NS)
        t_mono_ns = whole(answer, "t_mono_ns", 0, time.monotonic_ns())  # from the future it would hold up what comes
        place = answer.get("t_media_ns")
        t_media_ns = None if place is None else whole(answer, "t_media_ns", -MAX_TIME_NS, MAX_TIME_NS)
        camera = portrait.camera_size(answer.get("seen"))
        picture = portrait.seen(answer.get("picture"), self._lender, self._what)
        return Capture(picture, t_ns, t_mono_ns, answer["clock"], t_media_ns, camera)

    def _ask(self, order: dict[str, Any], patience_s: float | None) -> dict[str, Any]:
        """The answer to an order, with the memory lent that it takes. Raises the error that it tells of."""
        end = math.inf if patience_s is None else time.monotonic() + patience_s
        with self._guarded():
            talk.send(self._process.peer, {**order, "free": self._lender.freed()})
            for _ in range(MAX_NEEDS):
                left_s = None if end == math.inf else end - time.monotonic()
                answer, descriptors = talk.receive(self._process.peer, left_s)
                talk.close(descriptors)  # nobody asked for any
                self._lender.take_back(answer.get("drop", []))
                if "need" not in answer:
                    break
                end += self._lend(answer)
            else:
                raise talk.Nonsense("it asks for memory again and again")
            error = from_plain(answer, self._what) if "error" in answer else None
        if error is not None:
            raise error
        return answer

    def _lend(self, answer: dict[str, Any]) -> float:
        """Answers a `need`. Returns the seconds that it took: waiting for memory is no fault of the process."""
        began = time.monotonic()
        size = whole(answer, "need", 1, MAX_SIZE)
        if size > 4 * MAX_PIXELS:
            raise too_many(self._what)
        free = self._lender.freed()
        try:
            number, descriptor = self._lender.lend(size)
        except StalledError as error:
            talk.send(self._process.peer, {"refused": error.message, "free": free})
            return time.monotonic() - began
        try:
            talk.send(self._process.peer, {"lend": number, "free": free}, descriptor)
        finally:
            os.close(descriptor)
        return time.monotonic() - began

    @contextlib.contextmanager
    def _guarded(self) -> Any:
        """Ends the process where it hangs, has ended, or says what makes no sense; the error says which."""
        try:
            yield
        except TimeoutError:
            self._end()
            raise CameraError("hung", f"{self._what}: its process did not answer and was ended") from None
        except talk.Nonsense as error:
            self._end()
            raise CameraError("crashed", f"{self._what}: its process was ended: {error}") from None
        except talk.Gone:
            how = self._end()
            raise CameraError("crashed", f"{self._what}: its process ended{f' ({how})' if how else ''}") from None

    def _take_leave(self) -> None:
        """The end of what we say makes it close its camera and end; that is the end of what it says."""
        with contextlib.suppress(OSError, TimeoutError, talk.Gone, talk.Nonsense):
            self._process.peer.shutdown(1)
            end = time.monotonic() + LEAVE_S
            while (left_s := end - time.monotonic()) > 0:
                talk.close(talk.receive(self._process.peer, left_s)[1])

    def _end(self) -> str:
        self._ended = True
        how = self._process.end()
        self._lender.close()
        return how


def _decoder(told: object) -> DecoderChoice | None:
    """What decodes over there. Raises talk.Nonsense."""
    if told is None:
        return None
    texts = (told.get("name"), told.get("why")) if isinstance(told, dict) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise talk.Nonsense("no such decoder")
    name, why = (printable(text)[:MAX_WORDS] for text in texts if isinstance(text, str))
    return DecoderChoice(name, why)
