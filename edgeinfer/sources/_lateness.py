"""How late pictures arrive, told from their own time stamps: a network or a decoder that falls behind shows here."""

from __future__ import annotations

from dataclasses import dataclass

DRIFT = 0.002
"""Clocks of cameras run differently from ours by less than this, seconds per second."""
LATE_S = 0.3
PATIENCE_S = 5.0
"""Late for longer than this, and it was the camera's clock that jumped."""


@dataclass
class Lateness:
    """Compares the media clock with ours. The earliest arrival so far counts as punctual."""

    _punctual_s: float | None = None
    _last_s: float = 0.0
    _on_time_s: float = 0.0

    def late_s(self, media_s: float, now_s: float) -> float:
        """By how many seconds a picture of the media time `media_s`, arriving at `now_s`, is late. Never negative."""
        offset_s = now_s - media_s
        if self._punctual_s is None:
            self._restart(offset_s, now_s)
            return 0.0
        self._punctual_s = min(offset_s, self._punctual_s + DRIFT * (now_s - self._last_s))
        self._last_s = now_s
        late_s = offset_s - self._punctual_s
        if late_s < LATE_S:
            self._on_time_s = now_s
        elif now_s - self._on_time_s > PATIENCE_S:
            self._restart(offset_s, now_s)
            return 0.0
        return late_s

    def _restart(self, offset_s: float, now_s: float) -> None:
        self._punctual_s, self._last_s, self._on_time_s = offset_s, now_s, now_s
