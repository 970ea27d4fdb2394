"""The thread that keeps an allow list current: a disk that hangs holds up neither the door nor the publisher."""

from __future__ import annotations

import threading
import time

from edgeinfer.transport.allowlist import AllowList

REFRESH_S = 0.5
LOOK_S, LOOK_SHARE = 0.1, 0.1
"""How long the publisher's thread may wait for a disk's answer at once, and which part of its time."""
END_S = 1.0
"""How long the end waits for the thread, which goes by itself when its disk has answered or had its time."""


class ListWatch:
    """Looks at an allow list twice a second, and when asked to. Owns the list. Thread-safe.

    `looked` counts the looks that were asked for and are over, `waited_s` what `look` has waited for; `is_news` is set
    where one found another list.
    """

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed
        self._wake = threading.Event()
        self._over = threading.Condition()
        self._left_s, self._left_at_s = LOOK_S, time.monotonic()
        self._ended = False
        self._asked = 0
        self.looked = 0
        self.waited_s = 0.0
        self.is_news = False
        self._thread = threading.Thread(target=self._live, name="allow-list", daemon=True)
        self._thread.start()

    def ask(self) -> int:
        """Wants it to look now; once `looked` is at least what this returns, it has."""
        with self._over:
            self._asked += 1
            ticket = self._asked
        self._wake.set()
        return ticket

    def look(self) -> None:
        """Has it look, and waits a moment for that; not at all where it has waited for others just before."""
        ticket, start_s = self.ask(), time.monotonic()
        with self._over:
            left_s = min(LOOK_S, self._left_s + (start_s - self._left_at_s) * LOOK_SHARE)
            self._over.wait_for(lambda: self.looked >= ticket, left_s)
            self._left_at_s = time.monotonic()
            self._left_s = max(0.0, left_s - (self._left_at_s - start_s))
            self.waited_s += self._left_at_s - start_s

    def close(self) -> None:
        """Ends the thread; waits a second for it at most."""
        self._ended = True
        self._wake.set()
        self._thread.join(END_S)

    def _live(self) -> None:
        while not self._ended:
            self._wake.wait(REFRESH_S)
            self._wake.clear()
            asked = self._asked
            self.is_news |= self._allowed.refresh()
            with self._over:
                self.looked = asked
                self._over.notify_all()
        self._allowed.close()
