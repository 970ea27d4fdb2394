"""Work that may take long, each on a thread of its own, with a future for what comes of it."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from edgeinfer.errors import EdgeinferError, unexpected

log = logging.getLogger(__name__)

T = TypeVar("T")


class Background(Generic[T]):
    """One piece of work that has begun. `future` gets its result, or an EdgeinferError."""

    def __init__(self, name: str, work: Callable[[threading.Event], T]) -> None:
        """`work` is given an event that is set when nobody wants its result any more."""
        self.future: Future[T] = Future()
        self._work = work
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether `future` has what came of it."""
        return self.future.done()

    @property
    def running(self) -> bool:
        """Whether its thread has not ended: a normal exit of the process would wait for it."""
        return self._thread.is_alive()

    def outcome(self) -> T | EdgeinferError:
        """What came of it, once it is `done`."""
        error = self.future.exception()
        if error is None:
            return self.future.result()
        assert isinstance(error, EdgeinferError)  # noqa: S101 (see `_run`)
        return error

    def cancel(self, dispose: Callable[[T], None]) -> None:
        """Asks for an early end. `dispose` frees a result that is there, or comes all the same."""
        self._cancelled.set()
        self.future.add_done_callback(lambda done: None if done.exception() else dispose(done.result()))

    def _run(self) -> None:
        try:
            self.future.set_result(self._work(self._cancelled))
        except EdgeinferError as error:
            _let_go(error)
            self.future.set_exception(error)
        except BaseException as error:  # a plugin may even call sys.exit; whoever waits must hear of it
            log.debug("%s: unexpected error", self._thread.name, exc_info=True)
            self.future.set_exception(unexpected(f"{self._thread.name}: ", error))


def _let_go(error: BaseException) -> None:
    """Frees what the frames that it came through hold: the error is kept, and may have come for want of memory."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


class Workshop:
    """Whatever the daemon does in the background, so that its end can look who is still at it. From the main thread."""

    def __init__(self) -> None:
        self._begun: list[Background[object]] = []

    def begin(self, name: str, work: Callable[[threading.Event], T]) -> Background[T]:
        """Starts a piece of work."""
        self._begun = [job for job in self._begun if job.running]
        job = Background(name, work)
        self._begun.append(job)  # type: ignore[arg-type] # (whatever it makes)
        return job

    @property
    def busy(self) -> bool:
        """Whether a thread is still at work."""
        return any(job.running for job in self._begun)
