"""The hand-over from capture threads to the inference thread: bounded, fair, and free of hidden queues."""

from __future__ import annotations

import threading
from collections import deque

from edgeinfer.types import Frame


class Mailbox:
    """One short lane per source.

    A live source's lane holds its newest frame: a newer one takes the older one's place *in line*, so that a fast
    camera can't push a slow one back. Any other source waits until its lane has room. `take` goes round the lanes,
    one frame each, so that equal sources get equal shares.
    """

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._lanes: dict[str, deque[Frame]] = {}
        self._turns: deque[str] = deque()
        self._closed = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def set_depth(self, depth: int) -> None:
        """How many frames of one file may wait, from now on."""
        with self._lock:
            self._depth = depth
            self._room.notify_all()

    def put_latest(self, frame: Frame) -> Frame | None:
        """Hands over a live frame at once. Returns the frame that had to go: an older one, or this one once closed."""
        with self._lock:
            if self._closed:
                return frame
            lane = self._lanes.setdefault(frame.source, deque())
            replaced = lane.popleft() if lane else None
            self._append(lane, frame)
            return replaced

    def put_wait(self, frame: Frame, timeout_s: float) -> bool:
        """Hands over a frame that must not be dropped. False where there was no room in time, or the box is closed."""
        with self._room:
            lane = self._lanes.setdefault(frame.source, deque())
            if not self._room.wait_for(lambda: self._closed or len(lane) < self._depth, timeout_s) or self._closed:
                return False
            self._append(lane, frame)
            return True

    def take(self, limit: int, timeout_s: float) -> list[Frame]:
        """Up to `limit` waiting frames, one per source and round, after waiting `timeout_s` for the first."""
        with self._arrived:
            if not self._turns and timeout_s > 0:
                self._arrived.wait_for(lambda: bool(self._turns) or self._closed, timeout_s)
            frames: list[Frame] = []
            while self._turns and len(frames) < limit:
                frames.append(self._next())
            if frames:
                self._room.notify_all()
            return frames

    def forget(self, source: str) -> None:
        """Frees the lane of a source that has ended and from which nothing waits."""
        with self._lock:
            if not self._lanes.get(source):
                self._lanes.pop(source, None)

    def close(self) -> list[Frame]:
        """Takes no more frames and wakes everyone who waits. Returns the frames that were still waiting."""
        with self._lock:
            self._closed = True
            left = []
            while self._turns:
                left.append(self._next())
            self._arrived.notify_all()
            self._room.notify_all()
            return left

    def __len__(self) -> int:
        with self._lock:
            return sum(len(lane) for lane in self._lanes.values())

    def _append(self, lane: deque[Frame], frame: Frame) -> None:
        lane.append(frame)
        if frame.source not in self._turns:
            self._turns.append(frame.source)
        self._arrived.notify()

    def _next(self) -> Frame:
        source = self._turns.popleft()
        lane = self._lanes[source]
        frame = lane.popleft()
        if lane:
            self._turns.append(source)
        return frame
