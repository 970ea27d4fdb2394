"""The thread that is inside a source: one life from opening to closing. Whoever watches it may give it up."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgeinfer.contract import breach
from edgeinfer.errors import ConfigError, EdgeinferError, StalledError
from edgeinfer.flow.capture.intake import Intake
from edgeinfer.flow.capture.job import Job
from edgeinfer.guard.printable import indented, printable
from edgeinfer.interfaces import Decoding, NoRoom, Source, UnreadableItem
from edgeinfer.types import Capture

log = logging.getLogger(__name__)

_PAUSE_S = 0.1
ROOM_S = 0.002
"""A picture is in use for about as long as the network takes for one."""


class Reader(threading.Thread):
    """Opens the source, hands its frames to the intake and closes it. `done` is called at the end of its life.

    error: what ended it, if anything did. live: known once it is open. stall: what the source last said of having
    nothing to give. frozen: it gives the same picture again and again.
    """

    def __init__(self, job: Job, intake: Intake, done: Callable[[], None]) -> None:
        super().__init__(name=f"read:{job.name}", daemon=True)
        self.error: EdgeinferError | None = None
        self.live: bool | None = None
        self.finished = False
        self.frozen = False
        self.stall = ""
        self.limits = job.limits
        self.first_frame_ns: int | None = None
        self.last_frame_ns = job.clock()
        self._job = job
        self._intake = intake
        self._done = done
        self._stopping = threading.Event()
        self._call_until_ns = math.inf
        self._gate = threading.Lock()

    def stop(self) -> None:
        """Asks it to close the source; it does so after the call that it is in."""
        self._stopping.set()

    def give_up(self) -> bool:
        """Lets go of a thread whose call is past its deadline: from now on it books nothing. False where it is not."""
        with self._gate:
            late = self._job.clock() > self._call_until_ns
            if late:
                self._stopping.set()
            return late

    @property
    def call_until_ns(self) -> float:
        """When the call into the source that it is in must have come back, `math.inf` between calls."""
        return self._call_until_ns

    def run(self) -> None:
        """The thread's life."""
        try:
            self._read_source()
        except EdgeinferError as error:
            self.error = _bare(error)
        except BaseException as error:  # a plugin's bug, or its sys.exit, must not pass for the end of the source
            self.error = EdgeinferError(f"source {self._job.name}: {type(error).__name__}: {error}")
            for line in indented(error):
                log.debug("%s", line)
        finally:
            self.finished = True
            self._done()

    def _read_source(self) -> None:
        limits = self._job.limits
        with self._call(limits.first if limits.opening is None else limits.opening):
            source = self._job.open()
        try:
            self._opened(source)
            self._read_all(source)
        finally:
            with self._call(self._job.limits.timeout):
                source.close()

    def _opened(self, source: Source) -> None:
        if self._job.max_fps is not None and not source.live and not source.fps:
            raise ConfigError(
                f"sources.{self._job.name}.max_fps: these pictures have no rate to thin out", "give fps too"
            )
        self.limits = self._job.limits.at_rate(source.fps)
        self.last_frame_ns = self._job.clock()
        self.live = source.live
        if isinstance(source, Decoding):
            self._job.ledger.set_decoder(source.decoder.name, source.decoder.why)

    def _read_all(self, source: Source) -> None:
        live = source.live
        deadline_s = self.limits.timeout if live else math.inf
        while not self._stopping.is_set() and not self._intake.limit_reached(live):
            try:
                with self._call(deadline_s):
                    capture = source.read()
            except StalledError as error:
                self.stall = error.message
                self._stopping.wait(_PAUSE_S)  # one that says so at once must not become a busy loop
            except UnreadableItem as error:
                self._skip(printable(str(error)), live)
            except NoRoom:
                if not self._intake.make_room(live):
                    self._stopping.wait(ROOM_S)
            else:
                if capture is None or not self._accept(capture, live):
                    return
                capture = None  # it may be what the next one finds no room for

    def _skip(self, text: str, live: bool) -> None:
        with self._gate:
            if not self._unwanted(live):
                self._intake.skip(text)

    def _unwanted(self, live: bool) -> bool:
        """Whether nobody waits for this thread's pictures any more: it was given up, or a camera was stopped."""
        return live and self._stopping.is_set()

    def _accept(self, capture: Capture, live: bool) -> bool:
        """Passes a picture on. False where nobody waits for it."""
        if fault := breach(capture):
            raise ConfigError(
                f"source {self._job.name}: what it gave breaks the contract of a source: {fault}",
                "its plugin must give a Capture with a C-contiguous (height, width, 3) uint8 image and times in ns",
            )
        with self._gate:
            if self._unwanted(live):
                return False
            frame = self._intake.book(capture, live)
            self.frozen = frame is None
            if frame is not None:
                self._progress()
        if frame is not None:
            self._intake.hand_over(frame)
        return True

    def _progress(self) -> None:
        now_ns = self._job.clock()
        if self.first_frame_ns is None:
            self.first_frame_ns = now_ns
        self.last_frame_ns = now_ns
        self.stall = ""
        if self._job.ledger.state[0] != "running":
            self._job.ledger.set_state("running")

    @contextmanager
    def _call(self, deadline_s: float) -> Iterator[None]:
        """Marks a call into the source, so that one which never comes back is seen from outside."""
        self._call_until_ns = self._job.clock() + (deadline_s + self._job.limits.grace) * 1e9
        try:
            yield
        finally:
            self._call_until_ns = math.inf


def _bare(error: EdgeinferError) -> EdgeinferError:
    """The error without its traceback, which would keep the thread's last picture alive, and itself, in a cycle."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
