"""For Python programs that consume detections.

from edgeinfer.client import Subscriber

for message in Subscriber("tcp://127.0.0.1:5555"):
    print(message.source, [found.label for found in message.detections])
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import zmq

from edgeinfer.messages import DetectionsMessage, Message, decode, topic

Kind = Literal["detections", "status", "info"]


class Subscriber:
    """Iterates over typed messages. Not thread-safe; use it as a context manager, or call `close`.

    `lost` counts per source the messages that went missing in transport (gaps in `seq`), `skipped` those that
    `latest=True` passed over for a newer one, `malformed` what was no message of schema v1.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        sources: Sequence[str] = (),
        kinds: Sequence[Kind] = ("detections",),
        latest: bool = False,
        timeout_s: float | None = None,
        high_water_mark: int = 1000,
    ) -> None:
        """Connects at once; the daemon need not be there yet.

        `sources` and `kinds` choose what is received (no sources: all). `latest` gives the newest message per topic and
        skips those it overtook. After `timeout_s` without a message the iteration ends; by default it waits for ever.
        """
        self.lost: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.malformed = 0
        self._latest = latest
        self._timeout_s = timeout_s
        self._next_seq: dict[str, tuple[str, int]] = {}
        self._pending: dict[tuple[type[Message], str], Message] = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, high_water_mark)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)  # ms; the daemon gives waiting subscribers a moment, no more
        for kind in kinds:
            for source in sources or ("",):
                self._socket.setsockopt(zmq.SUBSCRIBE, topic(kind, source))
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def __iter__(self) -> Iterator[Message]:
        while (message := self.receive(self._timeout_s)) is not None:
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None after `timeout_s` without one."""
        if self._pending:
            return self._newest()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._read(deadline)) is None:
            if deadline is not None and time.monotonic() >= deadline:
                return None
        if not self._latest:
            return message
        self._keep(message)
        return self._newest()

    def close(self) -> None:
        """Disconnects."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, deadline: float | None) -> Message | None:
        """One message, or None at the deadline or for what is no message."""
        wait_ms = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
        if not self._socket.poll(wait_ms):
            return None
        parts = self._socket.recv_multipart()
        try:
            message = decode(parts[1])
        except (IndexError, msgspec.MsgspecError, UnicodeDecodeError):
            self.malformed += 1
            return None
        self._count_gap(message)
        return message

    def _newest(self) -> Message:
        """Drains what has arrived; the message that has waited longest among the newest of each kind and source."""
        while self._socket.poll(0):
            message = self._read(time.monotonic())
            if message is not None:
                self._keep(message)
        return self._pending.pop(next(iter(self._pending)))

    def _keep(self, message: Message) -> None:
        """The newest of its kind and source, in the place in line of the one that it overtakes."""
        key = (type(message), message.source)
        if key in self._pending:
            self.skipped[message.source] += 1
        self._pending[key] = message

    def _count_gap(self, message: Message) -> None:
        if isinstance(message, DetectionsMessage):
            session, expected = self._next_seq.get(message.source, (message.session, message.seq))
            if session == message.session and message.seq > expected:
                self.lost[message.source] += message.seq - expected
            self._next_seq[message.source] = (message.session, message.seq + 1)
