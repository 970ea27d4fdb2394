"""The model's life: loaded, served at once, taken over from by its engine, swapped for another, rolled back."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgeinfer.config.card import Model
from edgeinfer.config.settings import AUTO, FALLBACK, Config
from edgeinfer.daemon.assembly import model_info
from edgeinfer.daemon.background import Background, Workshop
from edgeinfer.daemon.explanation import explain
from edgeinfer.daemon.retrying import Retries
from edgeinfer.daemon.selection import Choice, Open, Opened, choose, teller
from edgeinfer.errors import EdgeinferError, FatalError, StickyError, UnavailableError
from edgeinfer.flow.network import Network
from edgeinfer.flow.succession import Succession, Verdict
from edgeinfer.interfaces import Backend, Decoder
from edgeinfer.messages import Reason
from edgeinfer.telemetry.bulletin import Bulletin

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A model, the network that runs it, and the configuration whose sections `model` and `backend` ask for them."""

    config: Config
    model: Model
    network: Network


class Serving:
    """What runs the model, from the main thread's point of view. `poll` takes the steps that have become possible.

    `now` is what serves, on trial or proven, and None until something does; it may be read from any thread.
    `begin` starts everything around the first network. `announce` hears of every network that begins to serve.
    `retries` opens an engine later that could not be had now, for the model that serves then.
    """

    def __init__(
        self,
        begin: Callable[[Network], Succession],
        announce: Callable[[Network], None],
        bulletin: Bulletin,
        workshop: Workshop,
    ) -> None:
        self._begin, self._announce = begin, announce
        self._bulletin, self._workshop = bulletin, workshop
        self.now: Served | None = None
        self._networks: Succession | None = None
        self._proven: Served | None = None
        self._offered: deque[tuple[Served, Verdict]] = deque()
        self._wanted: tuple[Config, Model, Decoder] | None = None
        self._loading: Background[Choice] | None = None
        self._building: Background[Backend] | None = None
        self._widening: Background[Backend] | None = None
        self._later: Open | None = None
        self.retries = Retries()
        self._engine_trial: Verdict | None = None
        self._instead: Callable[[threading.Event], Backend] | None = None
        self._explaining: Background[EdgeinferError | None] | None = None

    @property
    def backend(self) -> Backend | None:
        """What runs the model now; None until something does. From any thread."""
        now = self.now
        return None if now is None else now.network.backend

    @property
    def backend_name(self) -> str:
        """Its name, empty until something serves."""
        return "" if self.backend is None else self.backend.name

    def load(self, model: Model, decoder: Decoder, config: Config) -> None:
        """Begins to load the first model."""
        self._wanted = config, model, decoder
        self._loading = self._workshop.begin("model", lambda cancel: choose(model, config, decoder.filter, cancel))

    def poll(self, may_start: bool = True) -> None:
        """Starts the model that has been loaded, lets the engine that has been built take over, hears of trials.

        Raises EdgeinferError where nothing can run.
        """
        if self._loading is not None and self._loading.done and may_start:
            loaded, self._loading = self._loading, None
            self._start_with(loaded.outcome())
        self.hear()
        if self._building is not None and self._building.done and not self._offered:
            built, self._building = self._building, None
            self._take_over(built.outcome())
        elif self._widening is not None and self._widening.done and not self._offered:
            opened, self._widening = self._widening, None
            self._widen(opened.outcome())
        elif self._networks is not None and self._building is None and not self._offered:
            self._build(self.retries.due())
        if self._explaining is not None and self._explaining.done:
            asked, self._explaining = self._explaining, None
            self._tell_unused(asked.outcome())

    def swap(self, served: Served, new_model: bool = True) -> Verdict:
        """Lets another network take over, on trial. With a `new_model` the old one's engine is not built any more."""
        assert self._networks is not None  # noqa: S101 (callers wait until something serves)
        if new_model:
            self.cancel()
        verdict = self._networks.offer(served.network)
        self._offered.append((served, verdict))
        self._accept(served)
        return verdict

    def go_on(self, opened: Opened) -> None:
        """A network that was swapped in has proven itself: what it could not have is tried again, or explained."""
        self._instead, self._later = opened.instead, opened.later
        if opened.failure is not None:
            again = self.retries.after(opened.failure, opened.later)
            log.info("%s%s", opened.failure, again and f"; {again}")
        if opened.refused is not None:
            self._explain(opened.refused)

    def hear(self) -> None:
        """Takes note of trials that have ended. After the end of the data path what served last goes on to be that."""
        if self._networks is None or self._networks.ended:
            return
        while self._offered and self._offered[0][1].done():
            served, verdict = self._offered.popleft()
            if verdict.exception() is None and verdict.result():
                self._proven = served
        serves = self._offered[-1][0] if self._offered else self._proven
        if serves is not None and serves is not self.now:
            self._accept(serves)
        if self._engine_trial is not None and self._engine_trial.done():
            failure, self._engine_trial = failure_of(self._engine_trial), None
            if failure is not None:
                self._do_without(failure, "the engine failed in its first frames: ", "back")
            else:
                self._settled()

    def cancel(self) -> None:
        """Gives up the engine that is being built or is to be tried again, and the model that is being loaded."""
        self._settled()
        for job in (self._building, self._widening):
            if job is not None:
                job.cancel(lambda backend: backend.close())
        self._building = self._widening = None
        if self._loading is not None:
            self._loading.cancel(_close_choice)
            self._loading = None

    def _start_with(self, choice: Choice | EdgeinferError) -> None:
        if isinstance(choice, EdgeinferError):
            raise choice
        if choice.now is not None:
            self._serve(self._served(choice.now))
        if choice.news is not None:
            self._bulletin.news = choice.news
        elif choice.refused is not None:
            self._explain(choice.refused)
        self._instead = choice.instead
        self._build(choice.later)

    def _build(self, later: Open | None) -> None:
        """Begins to open the engine, which is built first where it has to be."""
        if later is None:
            return
        self._later, tell = later, teller(self._bulletin, self.backend_name)
        self._building = self._workshop.begin("engine", lambda cancel: later(tell, cancel))

    def _serve(self, served: Served) -> None:
        """The first network: everything starts around it."""
        self._proven = served
        self._accept(served)
        self._networks = self._begin(served.network)

    def _take_over(self, engine: Backend | EdgeinferError) -> None:
        if isinstance(engine, StickyError):
            raise engine
        if isinstance(engine, EdgeinferError):
            self._do_without(engine)
            return
        try:
            served = self._served(engine)
        except EdgeinferError as error:
            engine.close()
            self._do_without(error)
            return
        if self._networks is None:
            self._serve(served)
            self._settled()
        else:
            log.info("%s takes over from %s", engine.name, self.backend_name)
            self._engine_trial = self.swap(served, new_model=False)
        self._tell("engine-ready", f"running on {self.backend_name}")

    def _do_without(self, failure: EdgeinferError, what: str = "", how: str = "staying") -> None:
        """Stays on what serves, or loads what serves instead. Raises `failure` where there is neither.

        What may pass is tried again later; what serves meanwhile stays as thrifty as it was opened.
        """
        if self._networks is None and self._instead is None:
            raise failure
        again = self.retries.after(failure, self._later)
        if isinstance(failure, UnavailableError):
            self._bulletin.news = None
            self._explain(failure)
        else:
            serving = self.backend_name or FALLBACK
            rest = f"; {how} on {serving}{again and '; '}{again}"
            log.warning("%s%s%s", what, failure, rest)
            self._tell("engine-failed", f"{failure}{rest}")
        if self._networks is not None and again:
            return
        instead, self._instead = self._instead, None
        if self._networks is None and instead is not None:
            open_instead = instead
            self._loading = self._workshop.begin("model", lambda cancel: Choice(open_instead(cancel), None))
        elif instead is not None:
            self._widening = self._workshop.begin("model", instead)

    def _widen(self, backend: Backend | EdgeinferError) -> None:
        """No engine will come: what serves is opened again, and need not leave cores to a build any more."""
        if isinstance(backend, EdgeinferError):
            log.info("%s stays as it is: %s", self.backend_name, backend)
            return
        try:
            self.swap(self._served(backend), new_model=False)
        except EdgeinferError as error:
            backend.close()
            log.info("%s stays as it is: %s", self.backend_name, error)

    def _settled(self) -> None:
        """Nothing is to be tried again or opened instead any more."""
        self.retries.end()
        self._later = self._instead = None

    def _served(self, backend: Backend) -> Served:
        """The model as it is served now, or is to be served first, on another backend. Raises ConfigError."""
        assert self._wanted is not None  # noqa: S101 (`load` comes first)
        config, model, decoder = self._wanted
        if self.now is not None:
            config, model, decoder = self.now.config, self.now.model, self.now.network.decoder
        return Served(config, model, network(model, decoder, backend))

    def _accept(self, served: Served) -> None:
        self.now = served
        if served.config.backend.name != AUTO or not served.network.backend.name.startswith(FALLBACK):
            self._bulletin.unused = self._explaining = None  # it is used, or was not asked for
        self._announce(served.network)

    def _explain(self, refusal: EdgeinferError) -> None:
        """Begins to find out what stands in TensorRT's way: what serves instead need not wait for that."""
        self._explaining = self._workshop.begin("explanation", lambda _: explain(refusal))

    def _tell_unused(self, reason: EdgeinferError | None) -> None:
        """Nothing where there is no GPU that could be used."""
        if reason is not None:
            log.warning("TensorRT is not used: %s", reason)
            self._bulletin.unused = Reason("tensorrt-unused", f"TensorRT is not used: {reason}")

    def _tell(self, code: str, text: str) -> None:
        self._bulletin.news = Reason(code, text)


def _close_choice(choice: Choice) -> None:
    if choice.now is not None:
        choice.now.close()


def network(model: Model, decoder: Decoder, backend: Backend) -> Network:
    """A model with everything that it needs to run. Raises ConfigError where backend and decoder don't fit."""
    decoder.check(backend.output_specs, len(model.card.labels))
    return Network(model_info(model), backend, decoder)


def failure_of(verdict: Verdict) -> EdgeinferError | None:
    """Why an offer has failed; None where it did not. Once it is done."""
    error = verdict.exception()
    if error is None or isinstance(error, EdgeinferError):
        return error
    return FatalError(f"{type(error).__name__}: {error}")
