"""Which backend runs now, and the engine that is built beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edgeinfer import plugins
from edgeinfer.card import Model
from edgeinfer.config import AUTO, Config
from edgeinfer.engine.progress import OnProgress, Progress
from edgeinfer.errors import EdgeinferError
from edgeinfer.interfaces import Backend
from edgeinfer.messages import Reason

log = logging.getLogger(__name__)

FALLBACK = "onnxruntime"
Open = Callable[[OnProgress, threading.Event], Backend]
Tell = Callable[[Reason | None], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """`now` serves at once; `later` opens what takes over from it when it is ready. One of them may be None."""

    now: Backend | None
    later: Open | None
    news: Reason | None = None


def choose(model: Model, config: Config) -> Choice:
    """Opens what can serve at once. Raises EdgeinferError where nothing can.

    A configured backend that needs a build gives only `later`. `auto` takes a cached engine, else ONNX Runtime now and
    the engine later, else ONNX Runtime alone.
    """
    name, options, limit = config.backend.name, config.backend.options, config.model.max_batch
    module = plugins.load("backends", "tensorrt" if name == AUTO else name)
    if not hasattr(module, "Prepared"):
        return Choice(module.open(model, limit, options), None)
    try:
        prepared = module.Prepared(model, limit, options)
        if name != AUTO or prepared.cached:
            return Choice(None, prepared.open)
    except EdgeinferError as error:
        if name != AUTO:
            raise
        log.info("TensorRT is not used: %s", error.message)
        return Choice(_fallback(model, limit), None)
    return Choice(_fallback(model, limit), prepared.open)


class Upgrade(threading.Thread):
    """Opens a backend beside what runs. `backend` or `error` is set when the thread has ended.

    `tell` hears what is going on, from this thread.
    """

    def __init__(self, opener: Open, tell: Tell, serving: str) -> None:
        super().__init__(name="engine", daemon=True)
        self.backend: Backend | None = None
        self.error: EdgeinferError | None = None
        self._open, self._tell = opener, tell
        self._meanwhile = f"; serving on {serving} meanwhile" if serving else ""
        self._cancel = threading.Event()

    def cancel(self) -> None:
        """Gives the build up; nothing is left of it."""
        self._cancel.set()

    def run(self) -> None:
        """The thread's life."""
        try:
            self.backend = self._open(self._on_progress, self._cancel)
        except EdgeinferError as error:
            self.error = error
        except Exception as error:
            log.exception("engine: unexpected error")
            self.error = EdgeinferError(f"engine: {type(error).__name__}: {error}")

    def _on_progress(self, progress: Progress) -> None:
        share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
        self._tell(Reason("engine-building", f"{progress.phase}{share}, {progress.elapsed_s:.0f} s{self._meanwhile}"))


def _fallback(model: Model, max_batch: int | None) -> Backend:
    module = plugins.load("backends", FALLBACK)
    backend: Backend = module.open(model, max_batch, msgspec.convert({}, module.Options))
    return backend
