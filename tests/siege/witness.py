"""Good subscribers: programs that hear everything of the good cameras, do the sums, and print them once a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeinfer.client import Subscriber
from edgeinfer.messages import DAEMON, DetectionsMessage, InfoMessage, Message, StatusMessage
from tests.siege import program
from tests.siege.stage import GOOD, SUBSCRIBERS, Stage

TELL_S = 0.5
GRACE_NS = 2 * 10**9
"""A list that is put back at this moment may have cut connections a moment later."""


class Gap(msgspec.Struct, frozen=True):
    """Messages of a source that never came: they were published between these two instants of the monotonic clock."""

    source: str
    count: int
    after_ns: int
    before_ns: int


class Heard(msgspec.Struct):
    """What a subscriber has heard so far. `invalid`: messages that can't be true; `unaccounted`: frames, over all
    statuses, that are neither inferred, dropped nor in flight; `vanished`: frames of which no drop was counted."""

    results: dict[str, int] = {}
    statuses: int = 0
    sessions: list[str] = []
    gaps: list[Gap] = []
    invalid: list[str] = []
    malformed: int = 0
    unaccounted: int = 0
    vanished: int = 0
    waited_s: float = 0.0
    last_ns: dict[str, int] = {}
    state: dict[str, str] = {}
    reload: tuple[int, int, bool | None] = (0, 0, None)


class Listener:
    """Hears messages and keeps the book."""

    def __init__(self, checking: bool) -> None:
        self.heard = Heard()
        self._checking = checking
        self._seqs: dict[str, tuple[int, int]] = {}
        self._since_s = 0.0

    def hear(self, message: Message) -> None:
        """Takes one message."""
        now_s = time.monotonic()
        if self._since_s:
            self.heard.waited_s = max(self.heard.waited_s, now_s - self._since_s)
        self._since_s = now_s
        if message.session not in self.heard.sessions:
            self.heard.sessions.append(message.session)
        if self._checking and len(self.heard.invalid) < 10:
            self.heard.invalid += _faults(message)
        if isinstance(message, DetectionsMessage):
            self._result(message)
        elif isinstance(message, StatusMessage):
            self._status(message)

    def _result(self, message: DetectionsMessage) -> None:
        source, heard = message.source, self.heard
        heard.results[source] = heard.results.get(source, 0) + 1
        heard.last_ns[source] = message.t_publish_mono_ns
        seq, after_ns = self._seqs.get(source, (message.seq - 1, 0))
        if message.seq != seq + 1:
            heard.gaps.append(Gap(source, message.seq - seq - 1, after_ns, message.t_publish_mono_ns))
        self._seqs[source] = (message.seq, message.t_publish_mono_ns)
        heard.vanished += max(0, message.frame_id - message.seq - message.dropped)

    def _status(self, message: StatusMessage) -> None:
        heard = self.heard
        heard.statuses += 1
        heard.unaccounted += abs(message.captured - message.inferred - message.dropped - message.in_flight)
        heard.unaccounted += abs(message.dropped - sum(message.dropped_by_reason.values()))
        heard.state[message.source] = message.state
        if isinstance(message.reload, msgspec.Struct):
            heard.reload = (message.reload.requested, message.reload.finished, message.reload.ok)


def _faults(message: Message) -> list[str]:
    """What of a message can't be true; it has passed the schema already, and does so again here."""
    found = []
    if msgspec.convert(msgspec.to_builtins(message), type(message)) != message:
        found.append("it is not what the schema says")
    if not isinstance(message, InfoMessage) and message.source not in (*GOOD, DAEMON):
        found.append(f"{message.source!r} was not asked for")
    if isinstance(message, DetectionsMessage):
        for thing in message.detections:
            x1, y1, x2, y2 = thing.box
            inside = 0 <= x1 <= x2 <= message.width and 0 <= y1 <= y2 <= message.height
            if not (all(map(math.isfinite, (*thing.box, thing.score))) and inside):
                found.append(f"a box that is none: {thing}")
        if message.frame_id < message.seq:
            found.append(f"result {message.seq} of frame {message.frame_id}")
    return found


def listen(endpoint: str, server: str, key: str, checking: bool) -> None:
    """The program."""
    listener, told_s = Listener(checking), 0.0
    wanted: dict[str, Any] = {"sources": (*GOOD, DAEMON), "kinds": ("detections", "status", "info")}
    with Subscriber(endpoint, **wanted, high_water_mark=100_000, server_key=server, key=key) as subscriber:
        while True:
            message = subscriber.receive(TELL_S)
            if message is not None:
                listener.hear(message)
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                listener.heard.malformed = subscriber.malformed
                print(msgspec.json.encode(listener.heard).decode(), flush=True)


class Witness(threading.Thread):
    """Such a program, and what it has told last."""

    def __init__(self, stage: Stage, name: str) -> None:
        """Starts the program, from the thread that will end it; the thread starts with `start`."""
        super().__init__(name=name, daemon=True)
        access = {"endpoint": stage.endpoint, "server": stage.server_key, "key": stage.key(name)}
        self._process = program.start(
            "witness", "listen", stdout=program.PIPE, **access, checking=name == SUBSCRIBERS[-1]
        )
        self.heard = Heard()

    def run(self) -> None:
        assert self._process.stdout is not None
        decoder = msgspec.json.Decoder(Heard)
        for line in self._process.stdout:
            if line.endswith("\n"):  # not one that was cut off at the end
                self.heard = decoder.decode(line)

    @property
    def alive(self) -> bool:
        """Whether the program still hears."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the program."""
        self._process.kill()
        self.join(10)
        program.end(self._process)


def unexcused(gaps: Sequence[Gap], windows: Sequence[tuple[int, int]]) -> list[Gap]:
    """The gaps for which there is no reason: the allow list was a list all the time between."""
    return [
        gap
        for gap in gaps
        if not any(gap.before_ns >= begin and gap.after_ns <= end + GRACE_NS for begin, end in windows)
    ]
