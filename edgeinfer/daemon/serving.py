"""The model's life: loaded, served at once, taken over from by its engine, swapped for another, rolled back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgeinfer.config.card import Model
from edgeinfer.config.settings import FALLBACK, Config
from edgeinfer.daemon.assembly import model_info
from edgeinfer.daemon.selection import Background, Choice, choose, upgrade
from edgeinfer.errors import EdgeinferError, FatalError, StickyError
from edgeinfer.flow.inference import Network, Pipeline, Verdict
from edgeinfer.flow.publisher import Publisher
from edgeinfer.interfaces import Backend, Decoder
from edgeinfer.messages import Reason

log = logging.getLogger(__name__)

REHEARSAL_S = 30.0
Then = Callable[[EdgeinferError | None], None]
"""Hears how a swap has ended: None, or why the network before it serves again."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model, the network that runs it, and the configuration whose sections `model` and `backend` ask for them."""

    config: Config
    model: Model
    network: Network


@dataclass(frozen=True, slots=True)
class Swap:
    """A network on trial, what serves again if it fails, and what had been on trial itself when it came."""

    before: Served
    superseded: Served | None
    then: Then
    since_s: float


class Serving:
    """What runs the model, from the main thread's point of view. `poll` takes the steps that have become possible.

    `now` is None until something serves. `begin` makes the pipeline around the first network.
    """

    def __init__(self, publisher: Publisher, begin: Callable[[Network], Pipeline]) -> None:
        self.now: Served | None = None
        self.news: Reason | None = None
        self._publisher = publisher
        self._begin = begin
        self._pipeline: Pipeline | None = None
        self._loading: Background[Choice] | None = None
        self._upgrade: Background[Backend] | None = None
        self._given_up: list[Background[Backend]] = []
        self._instead: Callable[[], Backend] | None = None
        self._swap: Swap | None = None
        self._wanted: tuple[Config, Model, Decoder] | None = None

    @property
    def backend_name(self) -> str:
        """What runs the model now, empty until something does."""
        return "" if self.now is None else self.now.network.backend.name

    def load(self, model: Model, decoder: Decoder, config: Config) -> None:
        """Begins to load the model."""
        self._wanted = config, model, decoder
        self._loading = Background("model", lambda _: choose(model, config, decoder.filter))
        self._loading.start()

    def poll(self, may_start: bool = True) -> None:
        """Starts the model that has been loaded, lets the engine that has been built take over, hears of trials.

        Raises EdgeinferError where nothing can run.
        """
        if self._loading is not None and not self._loading.is_alive() and may_start:
            loaded, self._loading = self._loading, None
            self._start_with(loaded)
        self._hear_verdicts()
        if self._upgrade is not None and not self._upgrade.is_alive() and not self.on_trial:
            ready, self._upgrade = self._upgrade, None
            self._take_over(ready)

    @property
    def on_trial(self) -> bool:
        """Whether what serves has yet to prove itself."""
        return self._swap is not None

    @property
    def trial_s(self) -> float:
        """For how long it has been on trial."""
        return 0.0 if self._swap is None else time.monotonic() - self._swap.since_s

    def swap(self, served: Served, then: Then, new_model: bool = True) -> None:
        """Lets another network take over, on trial; `then` hears how that ended, from `poll`.

        With a `new_model` the engine that was being built for the one before is given up.
        """
        assert self.now is not None  # noqa: S101 (callers wait until something serves)
        assert self._pipeline is not None  # noqa: S101
        if new_model:
            self.cancel()
        now = time.monotonic()
        if self._swap is None:
            self._swap = Swap(self.now, None, then, now)
        else:
            self._swap = Swap(self._swap.before, self.now, then, now)
        self._pipeline.replace(served.network)
        self._accept(served)

    def tell(self, news: Reason | None) -> None:
        """Says it in the daemon's `status`. From any thread."""
        self.news = news
        self._publisher.set_news(news)

    def cancel(self) -> None:
        """Gives up the engine that is being built."""
        if self._upgrade is not None:
            self._upgrade.cancel(lambda backend: backend.close())
            alive = [thread for thread in self._given_up if thread.is_alive()]
            self._given_up, self._upgrade = [*alive, self._upgrade], None

    @property
    def threads(self) -> list[threading.Thread]:
        """What a normal exit of the process would wait for."""
        return [thread for thread in (self._loading, self._upgrade, *self._given_up) if thread is not None]

    def _start_with(self, loaded: Background[Choice]) -> None:
        if loaded.result is None:
            raise loaded.error or FatalError("the model was not loaded")
        if loaded.result.now is not None:
            self._serve(self._served(loaded.result.now))
        if loaded.result.news is not None:
            self.tell(loaded.result.news)
        self._instead = loaded.result.instead
        if loaded.result.later is not None:
            self._upgrade = upgrade(loaded.result.later, self.tell, self.backend_name)
            self._upgrade.start()

    def _serve(self, served: Served) -> None:
        """The first network: everything starts around it."""
        self._accept(served)
        self._pipeline = self._begin(served.network)

    def _take_over(self, ready: Background[Backend]) -> None:
        if isinstance(ready.error, StickyError):
            raise ready.error
        if ready.result is None:
            self._do_without(ready.error or FatalError("the engine was not built"))
            return
        try:
            served = self._served(ready.result)
        except EdgeinferError as error:
            ready.result.close()
            self._do_without(error)
            return
        before = self.backend_name
        if self._pipeline is None:
            self._serve(served)
        else:
            self.swap(served, self._engine_tried, new_model=False)
            log.info("%s takes over from %s", self.backend_name, before)
        self.tell(Reason("engine-ready", f"running on {self.backend_name}"))

    def _engine_tried(self, failure: EdgeinferError | None) -> None:
        if failure is not None:
            log.warning("the engine failed in its first frames: %s; back on %s", failure, self.backend_name)
            self.tell(Reason("engine-failed", f"{failure.message}; back on {self.backend_name}"))

    def _do_without(self, failure: EdgeinferError) -> None:
        """Stays on what serves, or loads what serves instead. Raises `failure` where there is neither."""
        instead, self._instead = self._instead, None
        if self._pipeline is None and instead is None:
            raise failure
        serving = self.backend_name or FALLBACK
        log.warning("%s; staying on %s", failure, serving)
        self.tell(Reason("engine-failed", f"{failure.message}; staying on {serving}"))
        if self._pipeline is None and instead is not None:
            open_instead = instead
            self._loading = Background("model", lambda _: Choice(open_instead(), None))
            self._loading.start()

    def _served(self, backend: Backend) -> Served:
        """The model as it is served now, or is to be served first, on another backend. Raises ConfigError."""
        assert self._wanted is not None  # noqa: S101 (`load` comes first)
        config, model, decoder = self._wanted
        if self.now is not None:
            config, model, decoder = self.now.config, self.now.model, self.now.network.decoder
        return Served(config, model, network(model, decoder, backend))

    def _accept(self, served: Served) -> None:
        backend = served.network.backend
        self.now = served
        self._publisher.set_backend(served.network.model, backend.name, backend.versions)

    def _hear_verdicts(self) -> None:
        while self._pipeline is not None and self._swap is not None and not self._pipeline.verdicts.empty():
            self._hear(self._pipeline.verdicts.get(), self._swap)

    def _hear(self, verdict: Verdict, swap: Swap) -> None:
        """The verdict is of what serves now, or of what was on trial before that."""
        assert self.now is not None  # noqa: S101 (it was swapped in)
        if verdict.network is self.now.network:
            self._swap = None
            if verdict.error is not None:
                self._accept(swap.before)
            swap.then(None if verdict.error is None else _explained(verdict.error))
        elif verdict.error is None and swap.superseded is not None:
            self._swap = replace(swap, before=swap.superseded, superseded=None)


def network(model: Model, decoder: Decoder, backend: Backend) -> Network:
    """A model with everything that it needs to run. Raises ConfigError where backend and decoder don't fit."""
    decoder.check(backend.output_specs, len(model.card.labels))
    return Network(model_info(model), backend, decoder)


def rehearse(network: Network) -> None:
    """Sends one grey picture through a network that nobody uses yet. Raises whatever is wrong with it."""
    backend = network.backend
    slot = backend.acquire()
    assert slot is not None  # noqa: S101 (nothing is in flight)
    letterboxes = backend.load(slot, [np.full((360, 640, 3), 128, np.uint8)])
    backend.submit(slot)
    done = backend.collect(REHEARSAL_S)
    if done is None:
        raise FatalError(f"{backend.name}: no result within {REHEARSAL_S:.0f} s")
    network.decoder.decode(done.candidates or done.outputs, letterboxes)
    backend.release(done)


def _explained(error: Exception) -> EdgeinferError:
    return error if isinstance(error, EdgeinferError) else FatalError(f"{type(error).__name__}: {error}")
