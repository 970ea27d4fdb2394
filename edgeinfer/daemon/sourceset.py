"""The set of sources: which ones run, with which settings, and how it becomes the set that is wanted.

Used from the main thread. A source that goes or changes is stopped and its last frames pass through; only then is the
device opened again, or the source taken off the list. The others never hear of it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from edgeinfer.config.settings import SourceConfig
from edgeinfer.daemon.assembly import Size, capture_job, scales
from edgeinfer.errors import EdgeinferError, FatalError
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import CaptureThread, Hung
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.messages import Reason
from edgeinfer.telemetry.governor import Governor
from edgeinfer.telemetry.snapshot import SourceSnapshot

LEAVE_S = 5.0
"""A removed source whose driver holds its thread for longer counts as gone; its device stays taken."""
REMOVED = Reason("removed", "taken out of the configuration")
STUCK = Reason("stuck", "its driver does not let go of it, so it can't be opened again yet")


class SourceSet:
    """`ledgers` has the books of every source that there ever was, `captures` the threads; inference reads the first.

    A source that comes back under its old name goes on in its old books: `seq` and `frame_id` have no gap.
    """

    def __init__(
        self,
        configs: Mapping[str, SourceConfig],
        limit: int | None,
        governor: Governor,
        changed: Callable[[], None],
    ) -> None:
        """`limit` ends each source after so many results; `changed` hears of every change of `books`."""
        self.ledgers = {name: Ledger(time.monotonic_ns) for name in configs}
        self.captures: dict[str, CaptureThread] = {}
        self._wanted = dict(configs)
        self._hung: defaultdict[str, Hung] = defaultdict(Hung)
        self._governor, self._limit, self._changed = governor, limit, changed
        self._size: Size | None = None
        self._leaving: dict[str, float] = {}
        self._listed = list(configs)
        self._mailbox: Mailbox | None = None

    def start(self, mailbox: Mailbox) -> None:
        """Opens every source, each on its own thread."""
        self._mailbox = mailbox
        self.poll()

    def apply(self, configs: Mapping[str, SourceConfig], restart: frozenset[str], limit: int | None) -> None:
        """Makes `configs` the set that is wanted; those in `restart` are opened anew, the others go on.

        What has to be waited for is done by `poll`.
        """
        for name in [*(self._wanted.keys() - configs.keys()), *restart]:
            self._leave(name)
        for name in configs.keys() - self._wanted.keys():
            self.ledgers.setdefault(name, Ledger(time.monotonic_ns)).set_state("starting")
        self._wanted, self._limit = dict(configs), limit
        self._listed = [*configs, *(name for name in self._listed if name not in configs)]
        for name in self._wanted.keys() & self.captures.keys():
            self.captures[name].adjust(self._wanted[name].max_fps, limit)
        self._changed()
        self.poll()

    def fit(self, size: Size | None) -> None:
        """Pictures need not exceed `size`, or are wanted whole: sources that scale are opened anew if that is new.

        What has to be waited for is done by `poll`.
        """
        if size == self._size:
            return
        self._size = size
        for name, config in self._wanted.items():
            if scales(config):
                self._leave(name)

    def poll(self) -> None:
        """Takes the steps that waited for a source to let go."""
        for name in list(self._leaving):
            self._see_off(name)
        for name in self._wanted:
            if name not in self.captures:
                self._start(name)

    @property
    def books(self) -> dict[str, Ledger]:
        """The books of the sources that the run has now; of those on their way out too, until they are gone."""
        return {name: self.ledgers[name] for name in self._listed}

    @property
    def alive(self) -> bool:
        """Whether a source may still give a frame."""
        return any(
            name not in self.captures or name in self._leaving or self.captures[name].is_alive()
            for name in self._wanted
        )

    def check(self) -> None:
        """Raises FatalError where every source that is left hangs in its driver: only a new process gets them back."""
        left = {name: capture for name, capture in self.captures.items() if capture.is_alive()}
        if left and all(capture.stuck for capture in left.values()):
            raise FatalError(
                f"calls into cameras' drivers never came back ({', '.join(left)})", "start the process again"
            )

    def stop(self) -> None:
        """Asks every source to end, and opens no more."""
        self._wanted.clear()
        for capture in self.captures.values():
            capture.stop()

    def snapshots(self) -> dict[str, SourceSnapshot]:
        """How every source of the run has fared, those that were removed included."""
        return {name: ledger.snapshot() for name, ledger in self.ledgers.items()}

    def errors(self) -> dict[str, EdgeinferError]:
        """The sources that have failed."""
        return {name: capture.error for name, capture in self.captures.items() if capture.error is not None}

    def _start(self, name: str) -> None:
        assert self._mailbox is not None  # noqa: S101 (`start` comes first)
        config, ledger = self._wanted[name], self.ledgers[name]
        job = replace(
            capture_job(name, config, ledger, self._mailbox, lambda: self._size),
            limit=self._limit,
            hung=self._hung[name],
            governor=self._governor,
        )
        self.captures[name] = CaptureThread(job)
        self.captures[name].start()

    def _leave(self, name: str) -> None:
        if name in self.captures:
            self.captures[name].stop()
            self._leaving.setdefault(name, time.monotonic() + LEAVE_S)

    def _see_off(self, name: str) -> None:
        """Once a source has let go, or has been waited for long enough: the end of its part in the run."""
        gone = not self.captures[name].is_alive() and not self.ledgers[name].snapshot().in_flight
        if gone:
            del self._leaving[name], self.captures[name]
            assert self._mailbox is not None  # noqa: S101 (it has run)
            self._mailbox.forget(name)
        elif time.monotonic() < self._leaving[name]:
            return
        if name in self._wanted:
            self.ledgers[name].set_state(*(("starting", None) if gone else ("stalled", STUCK)))
        elif name in self._listed:
            self.ledgers[name].set_state("ended", REMOVED)
            self._listed = [listed for listed in self._listed if listed != name]  # others may be reading it
            self._changed()
