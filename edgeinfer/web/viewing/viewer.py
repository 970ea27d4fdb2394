"""What one viewer gets next. Nothing here knows of networks, threads or pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

CREDITS = 2
"""Pictures that may be on their way to a viewer: one that is being drawn, and the next."""
STOPPED_S = 30.0
"""Who has drawn nothing of what was sent for so long is not there any more."""
WORDS_AT_ONCE, WORDS_A_SECOND = 100.0, 20.0
"""What a viewer may say beside an answer to each picture."""
MIN_WIDTH, MAX_WIDTH, DEFAULT_WIDTH, STEP = 64, 1920, 640, 32


def usable_width(width: int) -> int:
    """What is made for a viewer who asks for that: widths are few, so that viewers share their pictures."""
    return min(MAX_WIDTH, max(MIN_WIDTH, -(-width // STEP) * STEP))


class Viewer:
    """Statuses go first, then pictures; sources take turns, and of each the newest wins.

    A picture's way is `next`, then `add` or `give_up`, then `take`, and `drawn` in the end; no more than CREDITS are on
    it. What is to be sent is bounded: the newest status of each source, and those pictures. `waits`: `next` may have
    found more, if others were not on their way.
    """

    def __init__(self, now_s: float, sources: Sequence[str] = (), width: int = DEFAULT_WIDTH) -> None:
        self.width = width
        self.sources: tuple[str, ...] = ()
        self.waits = False
        self._turns: deque[str] = deque()
        self._marks: dict[str, int] = {}  # of the picture of each source that was made last
        self._statuses: dict[str, bytes] = {}
        self._pictures: deque[bytes] = deque()
        self._making: dict[str, int] = {}  # the marks that were asked for
        self._undrawn = 0
        self._heard_s = self._spoke_s = now_s
        self._words = WORDS_AT_ONCE
        self.look(sources, width)

    @property
    def credits(self) -> int:
        """How many more pictures may be on their way."""
        return CREDITS - len(self._making) - len(self._pictures) - self._undrawn

    def look(self, sources: Sequence[str], width: int) -> None:
        """At these from now on. Those that were looked at before keep their turn."""
        self.width, self.sources = width, tuple(dict.fromkeys(sources))
        kept = [source for source in self._turns if source in self.sources]
        self._turns = deque([*kept, *(source for source in self.sources if source not in kept)])
        self._marks = {source: mark for source, mark in self._marks.items() if source in self.sources}

    def next(self, newest: Mapping[str, int]) -> str | None:
        """The source whose picture is to be made now, None where there is none or no credit.

        `newest`: the mark of each source's newest picture, larger for each newer one.
        """
        self.waits = self.credits <= 0
        if self.waits:
            return None
        for source in self._turns:
            mark, making = newest.get(source, -1), self._making.get(source)
            if making is not None:
                self.waits = self.waits or mark > making
            elif mark > self._marks.get(source, -1):
                self._making[source] = mark
                self._turns.remove(source)
                self._turns.append(source)
                return source
        return None

    def add(self, source: str, mark: int, picture: bytes) -> None:
        """A source's picture has been made, perhaps a newer one. It is sent if it is still looked at."""
        self._making.pop(source, None)
        if source in self.sources:
            self._marks[source] = mark
            self._pictures.append(picture)

    def give_up(self, source: str, mark: int) -> None:
        """That picture could not be made; the next one may."""
        self._making.pop(source, None)
        if source in self.sources:
            self._marks[source] = mark

    def tell(self, key: str, status: bytes) -> None:
        """A status, which takes the place of an older one with this key that was not sent yet."""
        self._statuses[key] = status

    def take(self, now_s: float) -> bytes | None:
        """What is to be sent now."""
        if self._statuses:
            return self._statuses.pop(next(iter(self._statuses)))
        if not self._pictures:
            return None
        if not self._undrawn:
            self._heard_s = now_s
        self._undrawn += 1
        self._words = min(WORDS_AT_ONCE, self._words + 1)
        return self._pictures.popleft()

    def drawn(self, count: int, now_s: float) -> None:
        """So many more pictures have been drawn; what was never sent does not count."""
        if count > 0:
            self._undrawn, self._heard_s = max(0, self._undrawn - count), now_s

    def has_stopped(self, now_s: float) -> bool:
        """Whether pictures were sent long ago, and nothing of them was drawn since."""
        return self._undrawn > 0 and now_s - self._heard_s > STOPPED_S

    def may_speak(self, now_s: float) -> bool:
        """Whether one more message from the viewer is not too much."""
        self._words = min(WORDS_AT_ONCE, self._words + (now_s - self._spoke_s) * WORDS_A_SECOND) - 1
        self._spoke_s = now_s
        return self._words >= 0
