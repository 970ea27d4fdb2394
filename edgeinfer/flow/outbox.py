"""A thread between the publisher and a sink that may block, so that a full pipe holds up nobody else."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeinfer.errors import InputError, OutOfMemoryError, StalledError
from edgeinfer.frames import at_once
from edgeinfer.guard.limits import OUTBOX_MESSAGES, OUTBOX_PICTURES, SINK_PATIENCE_S
from edgeinfer.interfaces import Recovering, Selective, Sink
from edgeinfer.messages import Message
from edgeinfer.types import Result

log = logging.getLogger(__name__)

DEPTH, PICTURES, PATIENCE_S = OUTBOX_MESSAGES, OUTBOX_PICTURES, float(SINK_PATIENCE_S)
_TICK_S = 0.1
SLOW = "its reader or disk is too slow, or has stopped"


class Outbox(threading.Thread):
    """Passes messages on to `sink`, in order, on a thread of its own; without their results where it needs no pictures.

    When it is full, what a live source has to say is lost and counted in `refused`; a file's results wait for room,
    but not for a sink that takes nothing for PATIENCE_S. An error of the sink is raised by the next `write`; `error`
    keeps it. What is a property, and `error`, may be read by any thread.
    """

    blocks = False

    def __init__(
        self, name: str, sink: Sink, after: Outbox | None = None, waiting: Callable[[], None] = lambda: None
    ) -> None:
        """`after` is the one whose place it takes: nothing is written before that has written all it can.

        `waiting` is called now and then while a file's result waits for room.
        """
        super().__init__(name=f"sink:{name}", daemon=True)
        self.error: Exception | None = None
        self.refused = 0
        self._sink = sink
        self._after = after
        self._waiting = waiting
        self._retired = threading.Event()
        self._accepted = self._written = self._unseen = 0
        self._lack = ""
        self._stuck = False
        self._pictures = sink.pictures if isinstance(sink, Selective) else True
        self._depth = PICTURES if self._pictures else DEPTH
        self._queue: queue.Queue[tuple[Message, Result | None] | None] = queue.Queue(self._depth)
        self.start()

    @property
    def waiting(self) -> int:
        """Messages that the sink has not taken yet."""
        return self._accepted - self._written

    @property
    def lost(self) -> int:
        """Messages that were not written and won't be: there was no room for them, or the sink has lost them."""
        return self.refused + self._unseen + (self._sink.lost if isinstance(self._sink, Recovering) else 0)

    @property
    def trouble(self) -> str:
        """Why messages are lost now, empty while none is."""
        own = self._sink.trouble if isinstance(self._sink, Recovering) else ""
        return own or (SLOW if self._stuck else "")

    @property
    def reason(self) -> str:
        """Why messages were lost; empty where none was."""
        own = self._sink.reason if isinstance(self._sink, Recovering) else ""
        return own or (SLOW if self.refused or self._stuck else self._lack)

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. Waits for room only where `result` is a file's, and while the sink takes anything."""
        if self.error is not None:
            raise self.error
        patient = result is not None and not result.frame.live and not self._stuck
        self._accepted += 1
        if self._put((message, self._kept(result, patient)), patient):
            self._stuck = self._stuck and self._queue.qsize() > self._depth // 2
        elif self.error is None:
            self._accepted -= 1
            self.refused += 1
            self._say_stuck()

    def service(self) -> None:
        """See `Sink.service`."""

    def retire(self) -> None:
        """Lets the thread end by itself, once everything has been written and the sink is closed. Never waits."""
        self._retired.set()
        if self.lost:
            log.warning("%s: %d messages were not written", self.name, self.lost)
        with contextlib.suppress(queue.Full):  # then the thread has something to do, and looks when that is done
            self._queue.put_nowait(None)

    def close(self) -> None:
        """Waits until everything has been written and the sink is closed, or the sink has failed, or takes nothing.

        What it has not taken then is still `waiting`.
        """
        if not (self._put(None, patient=True) and self.wait()) and self.is_alive():
            self._retired.set()
            self._say_stuck()
        if self.error is not None:
            raise self.error

    def wait(self) -> bool:
        """Whether the thread has come to its end, after waiting for it while the sink takes anything."""
        return self._progressing(self._joined)

    def run(self) -> None:
        """The thread's life."""
        try:
            if self._after is not None:
                self._after.wait()
                self._after = None
            while (item := self._next()) is not None:
                self._hand_over(*item)
                self._written += 1
        except BaseException as error:  # whatever a sink does, the others go on and hear of it
            self.error = _plain(error)
        finally:
            self._close_sink()
        if self.error is not None and self._retired.is_set():
            log.warning("%s: %s", self.name, self.error)

    def _kept(self, result: Result | None, patient: bool) -> Result | None:
        """What the sink needs of a result. A picture waits in host memory: its decoder has few places on the device."""
        if result is None or not self._pictures:
            return None
        return in_host_memory(result) if patient or not self._queue.full() else result

    def _next(self) -> tuple[Message, Result | None] | None:
        """The next message, or None at the end."""
        return None if self._retired.is_set() and self._queue.empty() else self._queue.get()

    def _hand_over(self, message: Message, result: Result | None) -> None:
        """Writes it, unless its picture can't be had: there is no memory now to make BGR of it."""
        try:
            self._sink.write(message, result)
        except (StalledError, OutOfMemoryError) as error:
            if not self._lack:
                log.warning("%s: %s; what comes meanwhile is lost", self.name, error)
            self._unseen, self._lack = self._unseen + 1, str(error)

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except BaseException as error:
            self.error = self.error or _plain(error)

    def _put(self, item: tuple[Message, Result | None] | None, patient: bool) -> bool:
        """Whether there was room; `patient`: after waiting for it, as long as the sink takes something at all."""

        def placed() -> bool:
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_TICK_S)
                return True
            self._waiting()
            return False

        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(item)
            return True
        return patient and self._progressing(placed) and self.error is None

    def _progressing(self, done: Callable[[], bool]) -> bool:
        """Whether something gets done, which is asked again and again: false once the sink takes nothing for long."""
        seen, since_s = self._written, time.monotonic()
        while self.error is None and self.is_alive() and not done():
            if self._written != seen:
                seen, since_s = self._written, time.monotonic()
            elif time.monotonic() - since_s > PATIENCE_S:
                return False
        return True

    def _joined(self) -> bool:
        self.join(_TICK_S)
        return not self.is_alive()

    def _say_stuck(self) -> None:
        if not self._stuck:
            log.warning("%s: %s; what comes is lost until it takes something", self.name, SLOW)
        self._stuck = True


def in_host_memory(result: Result) -> Result:
    """The result, without hold on the device's memory. A picture for which there is no room now stays where it is.

    It never waits for room: this is the publisher's thread, which all sources share.
    """
    frame = result.frame
    picture = frame.capture.picture
    if isinstance(picture, np.ndarray) or not picture.on_device:
        return result
    with contextlib.suppress(StalledError, OutOfMemoryError, InputError), at_once():
        capture = replace(frame.capture, picture=picture.image())
        return replace(result, frame=replace(frame, capture=capture))
    return result


def _plain(error: BaseException) -> Exception:
    """An error that may be raised in another thread: a sink's sys.exit must not end that."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
