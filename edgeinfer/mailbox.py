"""The hand-over from capture threads to the inference thread: bounded, fair, and free of hidden queues."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgeinfer.types import Frame


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame in its lane. Older than `max_age_ns` it is worth nothing when its turn comes; `stale` hears of it."""

    frame: Frame
    max_age_ns: int | None = None
    stale: Callable[[], None] | None = None

    def is_stale(self, now_ns: int) -> bool:
        """Whether it has waited, or was on its way, for too long."""
        return self.max_age_ns is not None and now_ns - self.frame.capture.t_mono_ns > self.max_age_ns


class Mailbox:
    """One short lane per source.

    A live source's lane holds its newest frame. Any other source waits until its lane has room. `take` serves the lane
    that was served longest ago: every source that wants more than its share gets the same, however fast it is. (First
    come, first served would favour fast cameras, which are back in line sooner.) A live frame that is too old when its
    turn comes is passed over, so that latency is bounded however slow inference is.
    """

    def __init__(self, depth: int = 1, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._depth = depth
        self._clock = clock
        self._lanes: dict[str, deque[Waiting]] = {}
        self._waiting: dict[str, None] = {}
        self._served: dict[str, int] = {}
        self._serial = 0
        self._closed = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def set_depth(self, depth: int) -> None:
        """How many frames of one file may wait, from now on."""
        with self._lock:
            self._depth = depth
            self._room.notify_all()

    def put_latest(
        self, frame: Frame, max_age_ns: int | None = None, stale: Callable[[], None] | None = None
    ) -> Frame | None:
        """Hands over a live frame at once. Returns the frame that had to go: an older one, or this one once closed.

        Where its turn comes later than `max_age_ns` after its capture, it is dropped and `stale` is called instead.
        """
        with self._lock:
            if self._closed:
                return frame
            lane = self._lanes.setdefault(frame.source, deque())
            replaced = lane.popleft() if lane else None
            self._append(lane, Waiting(frame, max_age_ns, stale))
            return None if replaced is None else replaced.frame

    def put_wait(self, frame: Frame, timeout_s: float) -> bool:
        """Hands over a frame that must not be dropped. False where there was no room in time, or the box is closed."""
        with self._room:
            lane = self._lanes.setdefault(frame.source, deque())
            if not self._room.wait_for(lambda: self._closed or len(lane) < self._depth, timeout_s) or self._closed:
                return False
            self._append(lane, Waiting(frame))
            return True

    def take(self, limit: int, timeout_s: float) -> list[Frame]:
        """Up to `limit` waiting frames, one per source and round, after waiting `timeout_s` for the first."""
        with self._arrived:
            if not self._waiting and timeout_s > 0:
                self._arrived.wait_for(lambda: bool(self._waiting) or self._closed, timeout_s)
            frames: list[Frame] = []
            while self._waiting and len(frames) < limit:
                waiting = self._next()
                if not waiting.is_stale(self._clock()):
                    frames.append(waiting.frame)
                elif waiting.stale is not None:
                    waiting.stale()
            if frames:
                self._room.notify_all()
            return frames

    def close(self) -> list[Frame]:
        """Takes no more frames and wakes everyone who waits. Returns the frames that were still waiting."""
        with self._lock:
            self._closed = True
            left = []
            while self._waiting:
                left.append(self._next().frame)
            self._arrived.notify_all()
            self._room.notify_all()
            return left

    def __len__(self) -> int:
        with self._lock:
            return sum(len(lane) for lane in self._lanes.values())

    def _append(self, lane: deque[Waiting], waiting: Waiting) -> None:
        lane.append(waiting)
        self._waiting.setdefault(waiting.frame.source)
        self._arrived.notify()

    def _next(self) -> Waiting:
        source = min(self._waiting, key=lambda name: self._served.get(name, 0))
        self._serial += 1
        self._served[source] = self._serial
        lane = self._lanes[source]
        waiting = lane.popleft()
        if not lane:
            del self._waiting[source]
        return waiting
