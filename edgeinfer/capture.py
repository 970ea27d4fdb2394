"""One thread per source: opens it, reads it, books every frame and hands it to the mailbox."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edgeinfer.accounting import Ledger
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, StalledError
from edgeinfer.interfaces import Source, UnreadableItem
from edgeinfer.mailbox import Mailbox
from edgeinfer.messages import Reason
from edgeinfer.telemetry.governor import Governor, Thinning
from edgeinfer.types import Capture, Frame

log = logging.getLogger(__name__)

_WAIT_S = 0.1
MAX_TOLD = 10
"""So many unreadable pictures are named one by one; the others are only counted."""
MAX_STALLS = 3
"""So many read deadlines in a row and the source has failed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a capture thread works on. `limit` ends the source after so many results, `max_fps` thins it out."""

    name: str
    open: Callable[[], Source]
    ledger: Ledger
    mailbox: Mailbox
    max_fps: float | None = None
    limit: int | None = None
    governor: Governor | None = None


class CaptureThread(threading.Thread):
    """Runs a job to its end. `error` is what ended it early, if anything did; `live` is known once it is open."""

    def __init__(self, job: Job) -> None:
        super().__init__(name=f"capture:{job.name}", daemon=True)
        self.error: EdgeinferError | None = None
        self.live = True
        self._job = job
        self._stopping = threading.Event()
        self._last_kept_ns: float | None = None
        self._thinning = Thinning()
        self._unreadable = 0
        self._first_unreadable = ""

    def stop(self) -> None:
        """Asks the thread to end; it does so after the read that it is in."""
        self._stopping.set()

    def run(self) -> None:
        """The source's life. An error ends this source, never another."""
        try:
            self._run()
        except EdgeinferError as error:
            self._fail(error)
        except Exception as error:  # a plugin's bug must not pass for a camera that went quiet
            log.exception("source %s: unexpected error", self._job.name)
            self._fail(EdgeinferError(f"source {self._job.name}: {type(error).__name__}: {error}"))

    def _run(self) -> None:
        source = self._job.open()
        try:
            self.live = source.live
            self._check_pace(source)
            self._read_all(source)
        finally:
            source.close()
        if self._unreadable:
            raise _unreadable_error(self._unreadable, self._first_unreadable)
        self._job.ledger.set_state("ended", Reason("end", "the source is at its end"))

    def _check_pace(self, source: Source) -> None:
        if self._job.max_fps is not None and not source.live and not source.fps:
            raise ConfigError(
                f"sources.{self._job.name}.max_fps: these pictures have no rate to thin out", "give fps too"
            )

    def _read_all(self, source: Source) -> None:
        stalls, running = 0, False
        while not self._stopping.is_set() and not self._limit_reached():
            try:
                capture = source.read()
            except StalledError as error:
                stalls, running = stalls + 1, False
                self._stalled(error, stalls)
                continue
            except UnreadableItem as error:
                self._skip(str(error))
                continue
            if capture is None:
                return
            if not running:
                self._job.ledger.set_state("running")
            stalls, running = 0, True
            self._hand_over(capture)

    def _hand_over(self, capture: Capture) -> None:
        job = self._job
        frame = Frame(job.name, job.ledger.capture(), capture)
        if self._too_soon(capture):
            job.ledger.drop("max_fps")
        elif self.live and job.governor is not None and not self._thinning.keep(job.governor.factor):
            job.ledger.drop("thermal")
        elif self.live:
            if job.mailbox.put_latest(frame) is not None:
                job.ledger.drop("shutdown" if self._stopping.is_set() else "overload")
        else:
            while not job.mailbox.put_wait(frame, _WAIT_S):
                if self._stopping.is_set():
                    job.ledger.drop("shutdown")
                    return

    def _too_soon(self, capture: Capture) -> bool:
        """Whether the frame exceeds `max_fps`. The schedule, not the last kept frame, sets the pace: no drift."""
        if self._job.max_fps is None:
            return False
        now = capture.t_mono_ns if capture.t_media_ns is None or self.live else capture.t_media_ns
        period = 1e9 / self._job.max_fps
        last = self._last_kept_ns
        if last is not None and now - last < period * 0.999:
            return True
        self._last_kept_ns = now if last is None or now - last > 2 * period else last + period
        return False

    def _limit_reached(self) -> bool:
        limit = self._job.limit
        if limit is None:
            return False
        ledger = self._job.ledger
        return ledger.inferred >= limit or (not self.live and ledger.accepted >= limit)

    def _stalled(self, error: StalledError, count: int) -> None:
        self._job.ledger.set_state("stalled", Reason("timeout", error.message))
        log.warning("source %s: %s", self._job.name, error)
        if count >= MAX_STALLS:
            raise error

    def _skip(self, text: str) -> None:
        self._job.ledger.capture()
        self._job.ledger.drop("unreadable")
        self._unreadable += 1
        self._first_unreadable = self._first_unreadable or text
        if self._unreadable <= MAX_TOLD:
            log.warning("source %s: %s", self._job.name, text)

    def _fail(self, error: EdgeinferError) -> None:
        self.error = error
        code = "timeout" if isinstance(error, StalledError) else "input" if error.exit_code == 66 else "error"
        self._job.ledger.set_state("failed", Reason(code, error.message))


def _unreadable_error(count: int, first: str) -> EdgeinferError:
    return InputError(first if count == 1 else f"{count} pictures could not be read, the first: {first}")
