"""Frame accounting: captured = inferred + dropped + in flight, at any moment, for every source."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeinfer import codes
from edgeinfer.messages import Reason, State
from edgeinfer.telemetry.snapshot import SourceSnapshot

DropReason = codes.DropReason
_FPS_WINDOW_NS = 3_000_000_000


@dataclass
class Ledger:
    """The books of one source. Every method may be called from any thread."""

    clock: Callable[[], int]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _state: State = "starting"
    _reason: Reason | None = None
    _captured: int = 0
    _inferred: int = 0
    _in_flight: int = 0
    _stalls: int = 0
    _reconnects: int = 0
    _decoder: tuple[str, str] | None = None
    _dropped: Counter[str] = field(default_factory=Counter)
    _recent: deque[int] = field(default_factory=lambda: deque(maxlen=1024))

    def capture(self) -> int:
        """Enters a captured frame, now in flight. Returns its frame_id."""
        with self._lock:
            self._captured += 1
            self._in_flight += 1
            return self._captured - 1

    def drop(self, reason: DropReason) -> None:
        """A frame in flight is given up."""
        with self._lock:
            self._dropped[reason] += 1
            self._in_flight -= 1

    def infer(self) -> tuple[int, int]:
        """A frame in flight has its result. Returns the result's seq and the drops so far."""
        with self._lock:
            self._inferred += 1
            self._in_flight -= 1
            self._recent.append(self.clock())
            return self._inferred - 1, self._dropped.total()

    def set_state(self, state: State, reason: Reason | None = None) -> None:
        """A step of the source's life."""
        with self._lock:
            self._stalls += state == "stalled" != self._state
            self._state, self._reason = state, reason

    def open_again(self) -> None:
        """The source is opened once more."""
        with self._lock:
            self._reconnects += 1

    def set_decoder(self, name: str, why: str) -> None:
        """What decodes its video from now on, and why that."""
        with self._lock:
            self._decoder = name, why

    @property
    def inferred(self) -> int:
        """Results so far."""
        with self._lock:
            return self._inferred

    @property
    def accepted(self) -> int:
        """Results so far and frames that may still become one."""
        with self._lock:
            return self._inferred + self._in_flight

    @property
    def state(self) -> tuple[State, Reason | None]:
        """The source's state, and why."""
        with self._lock:
            return self._state, self._reason

    def snapshot(self) -> SourceSnapshot:
        """A consistent copy."""
        with self._lock:
            return SourceSnapshot(
                self._state,
                self._reason,
                self._captured,
                self._inferred,
                self._in_flight,
                dict(self._dropped),
                self._fps(),
                self._stalls,
                self._reconnects,
                self._decoder,
            )

    def _fps(self) -> float:
        since = self.clock() - _FPS_WINDOW_NS
        times = [t for t in self._recent if t >= since]
        span = times[-1] - times[0] if len(times) > 1 else 0
        return (len(times) - 1) * 1e9 / span if span else 0.0
