"""A thread between the publisher and a sink that may block, so that a full pipe holds up nobody else."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from edgeinfer.interfaces import Sink
from edgeinfer.messages import Message
from edgeinfer.types import Result

log = logging.getLogger(__name__)

DEPTH = 256


class Outbox(threading.Thread):
    """Passes messages on to `sink`, in order, on a thread of its own.

    When it is full, what a live source has to say is lost and counted in `lost`; a file's results wait for room.
    An error of the sink is raised by the next `write`; `error` keeps it.
    """

    blocks = False

    def __init__(
        self, name: str, sink: Sink, after: Outbox | None = None, waiting: Callable[[], None] = lambda: None
    ) -> None:
        """`after` is the one whose place it takes: nothing is written before that has written all.

        `waiting` is called now and then while a file's result waits for room.
        """
        super().__init__(name=f"sink:{name}", daemon=True)
        self.error: Exception | None = None
        self.lost = 0
        self._sink = sink
        self._after = after
        self._waiting = waiting
        self._retired = threading.Event()
        self._accepted = self._written = 0
        self._queue: queue.Queue[tuple[Message, Result | None] | None] = queue.Queue(DEPTH)
        self.start()

    @property
    def waiting(self) -> int:
        """Messages that the sink has not taken yet."""
        return self._accepted - self._written

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`. Waits for room only where `result` is a file's."""
        if self.error is not None:
            raise self.error
        if result is not None and not result.frame.live:
            self._accepted += 1
            self._put((message, result))
            return
        try:
            self._queue.put_nowait((message, result))
            self._accepted += 1
        except queue.Full:
            self.lost += 1

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
        """Waits until everything has been written and the sink is closed, or the sink has failed."""
        self._put(None)
        self.join()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """The thread's life."""
        try:
            if self._after is not None:
                self._after.join()
                self._after = None
            while (item := self._next()) is not None:
                self._sink.write(*item)
                self._written += 1
        except BaseException as error:  # whatever a sink does, the others go on and hear of it
            self.error = _plain(error)
        finally:
            self._close_sink()
        if self.error is not None and self._retired.is_set():
            log.warning("%s: %s", self.name, self.error)

    def _next(self) -> tuple[Message, Result | None] | None:
        """The next message, or None at the end."""
        return None if self._retired.is_set() and self._queue.empty() else self._queue.get()

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except BaseException as error:
            self.error = self.error or _plain(error)

    def _put(self, item: tuple[Message, Result | None] | None) -> None:
        while self.error is None and self.is_alive():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                self._waiting()
                continue
            return


def _plain(error: BaseException) -> Exception:
    """An error that may be raised in another thread: a sink's sys.exit must not end that."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
