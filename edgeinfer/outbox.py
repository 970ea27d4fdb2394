"""A thread between the publisher and a sink that may block, so that a full pipe holds up nobody else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from edgeinfer.interfaces import Sink
from edgeinfer.messages import Message
from edgeinfer.types import Result

DEPTH = 256


class Outbox(threading.Thread):
    """Passes messages on to `sink`, in order, on a thread of its own.

    When it is full, what a live source has to say is lost and counted in `lost`; a file's results wait for room.
    An error of the sink is raised by the next `write`; `error` keeps it.
    """

    blocks = False

    def __init__(self, name: str, sink: Sink, waiting: Callable[[], None] = lambda: None) -> None:
        """`waiting` is called now and then while a file's result waits for room."""
        super().__init__(name=f"sink:{name}", daemon=True)
        self.error: Exception | None = None
        self.lost = 0
        self._sink = sink
        self._waiting = waiting
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
        if result is not None and not result.live:
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

    def close(self) -> None:
        """Waits until everything has been written and the sink is closed, or the sink has failed."""
        self._put(None)
        self.join()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """The thread's life."""
        try:
            while (item := self._queue.get()) is not None:
                self._sink.write(*item)
                self._written += 1
        except Exception as error:  # whatever a sink does, the others go on
            self.error = error
        finally:
            self._close_sink()

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except Exception as error:
            self.error = self.error or error

    def _put(self, item: tuple[Message, Result | None] | None) -> None:
        while self.error is None and self.is_alive():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                self._waiting()
                continue
            return
