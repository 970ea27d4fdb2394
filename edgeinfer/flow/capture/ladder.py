"""A source's ladder: starting → running → stalled → reconnecting → running again, or failed."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from edgeinfer.errors import (
    CameraError,
    ConfigError,
    EdgeinferError,
    FatalError,
    StalledError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.flow.capture.backoff import Backoff
from edgeinfer.flow.capture.intake import Intake
from edgeinfer.flow.capture.job import Job
from edgeinfer.flow.capture.reader import Reader
from edgeinfer.messages import Reason

log = logging.getLogger(__name__)

FINAL = (ConfigError, UnavailableError, FatalError)
"""What opening the source again can't change."""
SILENT = ("timeout", "frozen")
"""The reasons of sources that are there and say nothing."""
TELL_PERIOD_S = 60.0
"""A source that fails again and again for the same reason is told of so often."""
STUCK = Reason("stuck", "calls into its driver never came back, so it is not opened again; a new process could")
STUCK_PAUSE_S = 0.5
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.02, 0.5


class CaptureThread(threading.Thread):
    """Runs a job to its end: watches the thread that reads, and opens the source again where it fails.

    It never is inside a source itself, so nothing that a driver does can hold it. `error` is what ended the job early,
    if anything did; `stuck` says that its driver holds so many threads that no other is tried.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(name=f"capture:{job.name}", daemon=True)
        self.error: EdgeinferError | None = None
        self.stuck = False
        self._job = job
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._intake = Intake(job, self._stopping)
        self._backoff = Backoff(job.random)
        self._reader: Reader | None = None
        self._seen = False
        self._away_ns: int | None = None
        self._told: tuple[str, int] | None = None

    @property
    def live(self) -> bool:
        """Whether its frames may be dropped; true until it is open."""
        reader = self._reader
        return reader is None or reader.live is not False

    def stop(self) -> None:
        """Asks the source to end. It does so after the read that it is in, or past that read's deadline without it."""
        self._stopping.set()
        self._wake.set()

    def adjust(self, max_fps: float | None, limit: int | None) -> None:
        """Changes what can be changed while the source runs. From any thread."""
        self._job = replace(self._job, max_fps=max_fps, limit=limit)
        self._intake.adjust(self._job)

    def run(self) -> None:
        """The source's life. An error ends this source, never another."""
        try:
            self._climb()
        except Exception as error:  # a bug of ours: a state that says `running` for ever would hide it
            log.exception("source %s: unexpected error", self._job.name)
            self._fail(EdgeinferError(f"source {self._job.name}: {type(error).__name__}: {error}"))
        finally:
            if self._reader is not None:
                self._reader.stop()

    def _climb(self) -> None:
        while self._may_open():
            reader = self._reader = Reader(self._job, self._intake, self._wake.set)
            trouble = self._read(reader)
            if self._stopping.is_set():
                self._stopped()
                return
            if trouble is None:
                self._ended()
                return
            if reader.first_frame_ns is not None:
                self._backoff.frames_came((reader.last_frame_ns - reader.first_frame_ns) / 1e9)
            delay_s = self._delay(reader, trouble)
            if delay_s is None:
                self._fail(trouble)
                return
            if self._stopping.wait(delay_s):
                self._stopped()
                return
            self._job.ledger.open_again()

    def _may_open(self) -> bool:
        """Waits while a driver holds as many threads as one source may lose. False where the source is stopped."""
        while self._job.hung.full and not self._stopping.is_set():
            self.stuck = True
            self._job.ledger.set_state("failed", STUCK)
            self._stopping.wait(STUCK_PAUSE_S)
        self.stuck = False
        if self._stopping.is_set():
            self._stopped()
        return not self._stopping.is_set()

    def _read(self, reader: Reader) -> EdgeinferError | None:
        try:
            reader.start()
        except RuntimeError as error:  # the system has no more threads for us; it may have some later
            return TemporaryError(f"source {self._job.name}: {error}")
        return self._watch(reader)

    def _watch(self, reader: Reader) -> EdgeinferError | None:
        """Until the reader has ended, or is given up. Returns what went wrong, if anything did."""
        lost: CameraError | None = None
        while True:
            self._wake.clear()
            if reader.finished:
                self._note_frames(reader)
                return lost or reader.error
            now_ns = self._job.clock()
            if now_ns > reader.call_until_ns and reader.give_up():
                self._job.hung.add(reader)
                return lost or self._lost("hung", "a call into it never came back")
            self._note_frames(reader)
            if lost is None and (lost := self._judge(reader, now_ns)) and self._reconnects(reader):
                self._job.ledger.set_state("reconnecting", Reason(lost.code, lost.message))
            if lost or self._stopping.is_set():
                reader.stop()
            self._wake.wait(self._pause_s(reader, now_ns))

    def _judge(self, reader: Reader, now_ns: int) -> CameraError | None:
        """Says in the ledger that the source has stalled. Returns the error of one that must be opened again."""
        if reader.live is None:
            self._mind_opening(reader, now_ns)
        if not reader.live:
            return None
        quiet_s, limits = (now_ns - reader.last_frame_ns) / 1e9, reader.limits
        code = "frozen" if reader.frozen else "timeout"
        complaint = self._complaint(reader, quiet_s)
        running = self._job.ledger.state[0] == "running"
        if running and (reader.frozen or quiet_s >= limits.stall):
            self._job.ledger.set_state("stalled", Reason(code, complaint))
        if quiet_s >= (limits.first if reader.first_frame_ns is None else limits.timeout):
            return self._lost(code, complaint)
        return None

    def _mind_opening(self, reader: Reader, now_ns: int) -> None:
        """Says in the ledger why a source is still being opened, where that is known to take long."""
        why, slow = self._job.opening_why, (now_ns - reader.last_frame_ns) / 1e9 >= reader.limits.stall
        if why and slow and self._job.ledger.state == ("starting", None):
            self._job.ledger.set_state("starting", Reason("opening", why))

    def _complaint(self, reader: Reader, quiet_s: float) -> str:
        if reader.frozen:
            return f"the same picture for {self._job.frozen_s:g} s"
        return reader.stall or f"no frame for {quiet_s:.1f} s"

    def _lost(self, code: str, text: str) -> CameraError:
        return CameraError(code, f"source {self._job.name}: {text}")

    def _note_frames(self, reader: Reader) -> None:
        if reader.first_frame_ns is None:
            return
        self._seen = True
        if self._away_ns is not None and not reader.frozen:
            away_s = (reader.first_frame_ns - self._away_ns) / 1e9
            log.info("source %s: running again after %.1f s", self._job.name, away_s)
            self._away_ns = self._told = None

    def _pause_s(self, reader: Reader, now_ns: int) -> float:
        """How long nothing can happen that needs us, within bounds: being open is not announced."""
        next_s = [_MAX_PAUSE_S, (reader.call_until_ns - now_ns) / 1e9]
        if reader.live:
            quiet_s = (now_ns - reader.last_frame_ns) / 1e9
            next_s += [left for left in (reader.limits.stall - quiet_s, reader.limits.timeout - quiet_s) if left > 0]
        return max(_MIN_PAUSE_S, min(next_s))

    def _delay(self, reader: Reader, trouble: EdgeinferError) -> float | None:
        """Seconds until the source is opened again, with its state set for that time; None where it is not."""
        if isinstance(trouble, FINAL) or not self._reconnects(reader) or not (self._seen or self._job.wait):
            return None
        if self._away_ns is None:
            self._away_ns = self._job.clock()
        code = reason_code(trouble)
        if isinstance(trouble, CameraError) and trouble.lasting:
            delay_s = self._backoff.after_lasting_failure()
            self._job.ledger.set_state("failed", Reason(code, trouble.message))
        else:
            delay_s = self._backoff.after_failure(code in SILENT)
            self._job.ledger.set_state("reconnecting", Reason(code, trouble.message))
        self._tell(code, trouble, delay_s)
        return delay_s

    def _reconnects(self, reader: Reader) -> bool:
        if self._job.reconnect is None:
            return reader.live is True
        return self._job.reconnect and reader.live is not False

    def _tell(self, code: str, trouble: EdgeinferError, delay_s: float) -> None:
        now_ns = self._job.clock()
        if self._told is None or self._told[0] != code or now_ns - self._told[1] >= TELL_PERIOD_S * 1e9:
            self._told = code, now_ns
            prefix = f"source {self._job.name}: "
            log.warning("%s%s; trying again in %.1f s", prefix, str(trouble).removeprefix(prefix), delay_s)

    def _ended(self) -> None:
        trouble = self._intake.trouble(self.live)
        if trouble is not None:
            self._fail(trouble)
        else:
            self._job.ledger.set_state("ended", Reason("end", "the source is at its end"))

    def _stopped(self) -> None:
        """The state of a source that was away stays as it was: that is how the run left it."""
        if self._job.ledger.state[0] in ("starting", "running", "stalled"):
            self._job.ledger.set_state("ended", Reason("stopped", "the source was stopped"))
        trouble = self._intake.trouble(self.live)
        if trouble is not None:
            self._fail(trouble)

    def _fail(self, error: EdgeinferError) -> None:
        self.error = error
        self._job.ledger.set_state("failed", Reason(reason_code(error), error.message))


def reason_code(error: EdgeinferError) -> str:
    """An error as the short code of a `status`."""
    if isinstance(error, CameraError):
        return error.code
    return "timeout" if isinstance(error, StalledError) else "input" if error.exit_code == 66 else "error"
