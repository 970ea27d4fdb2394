"""Where frames are booked: thinned out, checked, and put into the mailbox, each with its place in the ledger."""

from __future__ import annotations

import logging
import threading
from functools import partial

from edgeinfer.errors import EdgeinferError, InputError
from edgeinfer.flow.capture.frozen import FrozenDetector
from edgeinfer.flow.capture.job import Job
from edgeinfer.telemetry.governor import Thinning
from edgeinfer.types import Capture, Frame

log = logging.getLogger(__name__)

WAIT_S = 0.1
MAX_TOLD = 10
"""So many unreadable pictures are named one by one; the others are only counted."""


class Intake:
    """One source's frames on their way in, over all its readers. Used by one reader at a time."""

    def __init__(self, job: Job, stopping: threading.Event) -> None:
        self._job = job
        self._stopping = stopping
        self._last_kept_ns: float | None = None
        self._frozen = None if job.frozen_s is None else FrozenDetector()
        self._thinning = Thinning()
        self._unreadable = 0
        self._first_unreadable = ""

    def adjust(self, job: Job) -> None:
        """Goes by another `max_fps` and `limit` from the next frame on."""
        self._job = job

    def book(self, capture: Capture, live: bool) -> Frame | None:
        """Enters a picture; None where it shows what the ones before showed, for `frozen_s`."""
        frame = Frame(self._job.name, self._job.ledger.capture(), capture, live)
        if self._is_frozen(capture):
            self._job.ledger.drop("frozen")
            return None
        return frame

    def hand_over(self, frame: Frame) -> None:
        """Puts a booked frame into the mailbox, or drops it with its reason. For a file it waits for room."""
        job, live = self._job, frame.live
        if self._too_soon(frame.capture, live):
            job.ledger.drop("max_fps")
        elif live and job.governor is not None and not self._thinning.keep(job.governor.factor):
            job.ledger.drop("thermal")
        elif live:
            stale = partial(job.ledger.drop, "stale")
            if job.mailbox.put_latest(frame, job.max_age_ns, stale) is not None:
                job.ledger.drop("shutdown" if self._stopping.is_set() else "overload")
        else:
            while not job.mailbox.put_wait(frame, WAIT_S):
                if self._stopping.is_set():
                    job.ledger.drop("shutdown")
                    return

    def make_room(self, live: bool) -> bool:
        """Gives up the oldest frame of a live source that nobody has taken yet; false where there is none."""
        if not live or self._job.mailbox.give_way(self._job.name) is None:
            return False
        self._job.ledger.drop("overload")
        return True

    def skip(self, text: str) -> None:
        """Books a picture that can't be read."""
        self._job.ledger.capture()
        self._job.ledger.drop("unreadable")
        self._unreadable += 1
        self._first_unreadable = self._first_unreadable or text
        if self._unreadable <= MAX_TOLD:
            log.warning("source %s: %s", self._job.name, text)

    def trouble(self, live: bool) -> EdgeinferError | None:
        """What to say at the end where pictures of a file could not be read; a camera goes on with its next one."""
        if live or not self._unreadable:
            return None
        first, count = self._first_unreadable, self._unreadable
        return InputError(first if count == 1 else f"{count} pictures could not be read, the first: {first}")

    def limit_reached(self, live: bool) -> bool:
        """Whether the source has given the results that it was asked for. What is in flight may still be dropped."""
        limit, ledger = self._job.limit, self._job.ledger
        if limit is None:
            return False
        return ledger.inferred >= limit or (not live and ledger.accepted >= limit)

    def _is_frozen(self, capture: Capture) -> bool:
        if self._frozen is None or self._job.frozen_s is None:
            return False
        return self._frozen.same_for_ns(capture.picture, self._job.clock()) >= self._job.frozen_s * 1e9

    def _too_soon(self, capture: Capture, live: bool) -> bool:
        """Whether the frame exceeds `max_fps`. The schedule, not the last kept frame, sets the pace: no drift."""
        if self._job.max_fps is None:
            return False
        now = capture.t_mono_ns if capture.t_media_ns is None or live else capture.t_media_ns
        period = 1e9 / self._job.max_fps
        last = self._last_kept_ns
        if last is not None and now - last < period * 0.999:
            return True
        self._last_kept_ns = now if last is None or now - last > 2 * period else last + period
        return False
