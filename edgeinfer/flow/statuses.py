"""The `status` of every source and of the daemon: once a second, and as soon as one is another than before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.compose import daemon_status, status_message
from edgeinfer.flow.wallclock import WallClock
from edgeinfer.messages import Reason, State, StatusMessage
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SourceSnapshot, total

log = logging.getLogger(__name__)

PERIOD_S = 1.0


class Statuses:
    """Used by the publisher's thread. `picture` gives the daemon as it is now."""

    def __init__(
        self, session: str, ledgers: Mapping[str, Ledger], bulletin: Bulletin, picture: Callable[[], DaemonSnapshot]
    ) -> None:
        self._session, self._bulletin, self._picture = session, bulletin, picture
        self._ledgers, self._all_ledgers = dict(ledgers), list(ledgers.values())
        self._wall = WallClock()
        self._shown: dict[str, tuple[State, Reason | None]] = {}
        self._shown_of_daemon: object = None
        self._due_s = 0.0

    def change_sources(self, ledgers: Mapping[str, Ledger], all_ledgers: Sequence[Ledger]) -> list[StatusMessage]:
        """From now on these sources. Returns the last status of those that are gone.

        `all_ledgers` counts those too: the daemon's own counters never fall.
        """
        gone = {name: ledger for name, ledger in self._ledgers.items() if name not in ledgers}
        self._ledgers, self._all_ledgers = dict(ledgers), list(all_ledgers)
        for name in gone:
            self._shown.pop(name, None)
        return [status_message(name, ledger.snapshot(), self._session) for name, ledger in gone.items()]

    def due(self, final: bool = False) -> list[StatusMessage]:
        """What is to be published now; `final`: everything, for the last time."""
        now = time.monotonic()
        all_due = final or now >= self._due_s
        if all_due:
            self._due_s = now + PERIOD_S
            self._look_at_the_clock()
        return [*self._of_sources(all_due), *self._of_daemon(all_due, final)]

    def _of_sources(self, all_due: bool) -> list[StatusMessage]:
        found: list[StatusMessage] = []
        for name, ledger in self._ledgers.items():
            if all_due or self._shown.get(name) != ledger.state:
                self._shown[name] = ledger.state
                found.append(status_message(name, ledger.snapshot(), self._session))
        return found

    def _of_daemon(self, all_due: bool, final: bool) -> list[StatusMessage]:
        board = self._bulletin
        told = [self._daemon(reason, final) for reason in board.take_flashes()]
        now = (board.headline, board.facts)
        if all_due or self._shown_of_daemon != now:
            self._shown_of_daemon = now
            told.append(self._daemon(board.headline, final))
        return told

    def _daemon(self, headline: Reason | None, final: bool) -> StatusMessage:
        picture = self._picture()
        state: State = "ended" if final else "running" if picture.backend else "starting"
        state = "failed" if self._bulletin.fatal else state
        return daemon_status(self._total(state, headline), picture, self._bulletin.facts, self._session)

    def _total(self, state: State, reason: Reason | None) -> SourceSnapshot:
        return total(state, reason, [ledger.snapshot() for ledger in self._all_ledgers])

    def _look_at_the_clock(self) -> None:
        step_ns = self._wall.look()
        if step_ns is not None:
            log.warning("the wall clock was set by %+.1f s; stamps before and after differ by that", step_ns / 1e9)
            self._bulletin.note("clock_step_s", step_ns / 1e9)
