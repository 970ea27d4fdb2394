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


class Lane:
    """What waits of one source, and when it was served last. `room` wakes its capture thread.

    That is when half of the lane is free: waking it for every frame costs more than the frame does.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self.waiting: deque[Waiting] = deque()
        self.live = False
        self.served = 0
        self.room = threading.Condition(lock)


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
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[str, Lane] = {}
        self._serial = 0
        self._closed = False
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._since_s = 0.0

    def set_depth(self, depth: int) -> None:
        """How many frames of one file may wait, from now on."""
        with self._lock:
            self._depth = depth
            self._wake_all()

    def put_latest(
        self, frame: Frame, max_age_ns: int | None = None, stale: Callable[[], None] | None = None
    ) -> Frame | None:
        """Hands over a live frame at once. Returns the frame that had to go: an older one, or this one once closed.

        Where its turn comes later than `max_age_ns` after its capture, it is dropped and `stale` is called instead.
        """
        with self._lock:
            if self._closed:
                return frame
            lane = self._lane(frame.source)
            lane.live = True
            replaced = lane.waiting.popleft() if lane.waiting else None
            self._append(lane, Waiting(frame, max_age_ns, stale))
            return None if replaced is None else replaced.frame

    def give_way(self, source: str) -> Frame | None:
        """Takes back the oldest frame that waits of a live source, for a newer one to come; None where none waits."""
        with self._lock:
            lane = self._waiting.get(source)
            if lane is None or not lane.live:
                return None
            waiting = lane.waiting.popleft()
            if not lane.waiting:
                del self._waiting[source]
            return waiting.frame

    def put_wait(self, frame: Frame, timeout_s: float) -> bool:
        """Hands over a frame that must not be dropped. False where there was no room in time, or the box is closed."""
        with self._lock:
            lane = self._lane(frame.source)
            lane.room.wait_for(lambda: self._closed or len(lane.waiting) < self._depth, timeout_s)
            if self._closed or len(lane.waiting) >= self._depth:
                return False
            self._append(lane, Waiting(frame))
            return True

    def take(self, limit: int, timeout_s: float, company_s: float = 0.0) -> list[Frame]:
        """Up to `limit` waiting frames, one per source and round, after waiting `timeout_s` for the first.

        With `company_s` frames wait that long for others, unless the batch is full or there is nobody to wait for;
        that too ends with `timeout_s`, and then nothing is taken.
        """
        with self._arrived:
            if not self._waiting and timeout_s > 0:
                self._arrived.wait_for(lambda: bool(self._waiting) or self._closed, timeout_s)
            if company_s > 0 and not self._in_company(limit, timeout_s, company_s):
                return []
            frames: list[Frame] = []
            while self._waiting and len(frames) < limit:
                waiting = self._next()
                if not waiting.is_stale(self._clock()):
                    frames.append(waiting.frame)
                elif waiting.stale is not None:
                    waiting.stale()
            for lane in self._lanes.values():
                if len(lane.waiting) <= self._depth // 2:
                    lane.room.notify()
            return frames

    def forget(self, source: str) -> None:
        """Frees the lane of a source that has ended and from which nothing waits."""
        with self._lock:
            if source not in self._waiting:
                self._lanes.pop(source, None)

    def close(self) -> list[Frame]:
        """Takes no more frames and wakes everyone who waits. Returns the frames that were still waiting."""
        with self._lock:
            self._closed = True
            left = []
            while self._waiting:
                left.append(self._next().frame)
            self._arrived.notify_all()
            self._wake_all()
            return left

    def __len__(self) -> int:
        with self._lock:
            return sum(len(lane.waiting) for lane in self._lanes.values())

    def _lane(self, source: str) -> Lane:
        if source not in self._lanes:
            self._lanes[source] = Lane(self._lock)
        return self._lanes[source]

    def _wake_all(self) -> None:
        for lane in self._lanes.values():
            lane.room.notify_all()

    def _in_company(self, limit: int, timeout_s: float, company_s: float) -> bool:
        """Waits until the batch is full, or has waited for long enough. Whether it is to be taken."""
        due_s = self._since_s + company_s
        left_s = min(timeout_s, due_s - time.monotonic())
        if left_s > 0 and not self._full(limit):
            self._arrived.wait_for(lambda: self._full(limit) or self._closed, left_s)
        return bool(self._waiting) and (self._full(limit) or time.monotonic() >= due_s or self._closed)

    def _full(self, limit: int) -> bool:
        """Whether nothing would come of waiting: the batch is full, or a frame of every camera is there."""
        lanes = self._lanes.values()
        return sum(len(lane.waiting) for lane in lanes) >= limit or all(lane.live and lane.waiting for lane in lanes)

    def _append(self, lane: Lane, waiting: Waiting) -> None:
        if not self._waiting:
            self._since_s = time.monotonic()
        lane.waiting.append(waiting)
        self._waiting[waiting.frame.source] = lane
        self._arrived.notify()

    def _next(self) -> Waiting:
        source, lane = min(self._waiting.items(), key=_longest_ago)
        self._serial += 1
        lane.served = self._serial
        waiting = lane.waiting.popleft()
        if not lane.waiting:
            del self._waiting[source]
        return waiting


def _longest_ago(entry: tuple[str, Lane]) -> int:
    return entry[1].served
