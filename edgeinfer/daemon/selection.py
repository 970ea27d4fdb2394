"""Which backend runs now, and the engine that is built beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from edgeinfer.backends import Prepared, StagedBackendModule, ThriftyBackendModule, TriedBackendModule
from edgeinfer.config import plugins
from edgeinfer.config.card import Model
from edgeinfer.config.settings import AUTO, FALLBACK, TENSORRT, Config
from edgeinfer.daemon.explanation import explain
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.errors import BuildCancelledError, CrashLoopError
from edgeinfer.errors import (
    ConfigError,
    EdgeinferError,
    OutOfMemoryError,
    StickyError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.interfaces import Backend, Filter
from edgeinfer.messages import Reason
from edgeinfer.telemetry.bulletin import Bulletin

log = logging.getLogger(__name__)

Open = Callable[[OnProgress, threading.Event], Backend]
FallBack = Callable[[threading.Event], Backend]


class FallBacks(Protocol):
    """Opens what serves without an engine; `thrifty` where one is built beside it."""

    def __call__(self, cancel: threading.Event, thrifty: bool) -> Backend: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """`now` serves at once; `later` opens what takes over from it when it is ready. One of them may be None.

    `instead` opens what serves where `later` fails for good: it has no build beside it, as a `now` has. None where that
    ends the run.
    `news` is what there is to tell of the choice. `refused`: why TensorRT could not be prepared.
    """

    now: Backend | None
    later: Open | None
    instead: FallBack | None = None
    news: Reason | None = None
    refused: EdgeinferError | None = None


def choose(model: Model, config: Config, wanted: Filter | None, cancel: threading.Event | None = None) -> Choice:
    """Opens what can serve at once, ready for a decoder that wants what `wanted` says.

    Raises EdgeinferError, soon after `cancel` is set too.

    A configured backend that needs a build gives only `later`. `auto` takes a cached engine, else ONNX Runtime now and
    the engine later, else ONNX Runtime alone.
    """
    name, options, limit = config.backend.name, config.backend.options, config.model.max_batch
    cancel = cancel or threading.Event()
    module = plugins.load("backends", TENSORRT if name == AUTO else name)
    if model.is_plan and name not in (AUTO, TENSORRT):
        raise ConfigError(f"{model.path}: a TensorRT plan, which backend {name!r} can't run", "--backend tensorrt")
    if not isinstance(module, StagedBackendModule):
        return Choice(_opened(module, model, limit, options, wanted, cancel), None)
    prepare = partial(module.prepare, model, limit, options)
    if name != AUTO or model.is_plan:
        return _staged(prepare, wanted)
    return _automatic(prepare, wanted, partial(_fallback, model, config, wanted), cancel)


def _staged(prepare: Callable[[], Prepared], wanted: Filter | None) -> Choice:
    """What was asked for, or nothing."""
    try:
        return Choice(None, _then_ready(prepare().open, wanted))
    except UnavailableError as error:
        raise explain(error) or error from None


def _automatic(
    prepare: Callable[[], Prepared], wanted: Filter | None, fall_back: FallBacks, cancel: threading.Event
) -> Choice:
    """The engine that is cached; else what serves until it is built, or instead of it."""
    try:
        prepared = prepare()
    except OutOfMemoryError:  # other programs may give some back
        return Choice(fall_back(cancel, True), _prepared_later(prepare, wanted), partial(fall_back, thrifty=False))
    except EdgeinferError as error:
        return Choice(fall_back(cancel, False), None, news=_degraded(error), refused=error)
    opener = _then_ready(prepared.open, wanted)
    return Choice(None if prepared.cached else fall_back(cancel, True), opener, partial(fall_back, thrifty=False))


def may_pass(failure: EdgeinferError) -> bool:
    """Whether the same attempt may well succeed later. One that was given up, or took too long, would again."""
    return isinstance(failure, TemporaryError) and not isinstance(failure, BuildCancelledError)


@dataclass(frozen=True, slots=True)
class Opened:
    """What is to take over. `later` opens the engine that could not be had, for `failure`, and may be some time.

    `instead` and `refused` are those of the `Choice`.
    """

    backend: Backend
    later: Open | None = None
    failure: EdgeinferError | None = None
    instead: FallBack | None = None
    refused: EdgeinferError | None = None


def build(model: Model, config: Config, wanted: Filter | None, tell: OnProgress, cancel: threading.Event) -> Opened:
    """Opens what is to take over from another model, and waits for its engine, which may take minutes.

    `tell` hears how far it is, on this thread. Where the engine can't be had and another backend would do (see
    `choose`), that one. Raises EdgeinferError.
    """
    choice = choose(model, config, wanted, cancel)
    if choice.later is None:
        assert choice.now is not None  # noqa: S101 (one of the two)
        return Opened(choice.now, refused=choice.refused)
    try:
        engine = choice.later(tell, cancel)
    except EdgeinferError as error:
        if cancel.is_set() or isinstance(error, StickyError):
            _close(choice.now)
            raise
        if choice.instead is None:
            raise
        log.warning("%s; %s is used instead", error, FALLBACK)
        if may_pass(error) and choice.now is not None:
            return Opened(choice.now, choice.later, error, choice.instead)
        _close(choice.now)
        return Opened(choice.instead(cancel), choice.later if may_pass(error) else None, error)
    _close(choice.now)
    return Opened(engine)


def _degraded(error: EdgeinferError) -> Reason | None:
    """A machine without TensorRT is as it should be; one whose engine crashes is not."""
    if not isinstance(error, CrashLoopError):
        return None
    log.warning("%s; serving on %s", error, FALLBACK)
    return Reason("engine-failed", f"{error.message}; serving on {FALLBACK}")


def teller(bulletin: Bulletin, serving: str) -> OnProgress:
    """Makes news of a build's progress; `serving` is what runs meanwhile."""
    meanwhile = f"; serving on {serving} meanwhile" if serving else ""

    def on_progress(progress: BuildProgress) -> None:
        share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
        why = f"; building because {progress.reason}" if progress.reason else ""
        text = f"{progress.phase}{share}, {progress.elapsed_s:.0f} s{why}{meanwhile}"
        bulletin.news = Reason("engine-building", text)

    return on_progress


def _close(backend: Backend | None) -> None:
    if backend is not None:
        backend.close()


def _fallback(model: Model, config: Config, wanted: Filter | None, cancel: threading.Event, thrifty: bool) -> Backend:
    module = plugins.load("backends", FALLBACK)
    options = config.backend.fallback or module.Options()
    if thrifty and isinstance(module, ThriftyBackendModule):
        options = module.thrifty(options)
    return _opened(module, model, config.model.max_batch, options, wanted, cancel)


def _opened(
    module: Any, model: Model, limit: int | None, options: Any, wanted: Filter | None, cancel: threading.Event
) -> Backend:
    if isinstance(module, TriedBackendModule):
        module.try_out(model, limit, options, cancel)
    return _ready(module.open(model, limit, options), wanted)


def _then_ready(opener: Open, wanted: Filter | None) -> Open:
    return lambda on_progress, cancel: _ready(opener(on_progress, cancel), wanted)


def _prepared_later(prepare: Callable[[], Prepared], wanted: Filter | None) -> Open:
    return lambda on_progress, cancel: _ready(prepare().open(on_progress, cancel), wanted)


def _ready(backend: Backend, wanted: Filter | None) -> Backend:
    try:
        backend.prepare(wanted)
    except OutOfMemoryError:
        backend.close()  # it may be tried again, and the lack is not its fault
        raise
    return backend
