"""A changed configuration file → a changed daemon, step by step, while it runs. Whole or not at all.

    request → read and check (a thread) → build (a thread, only for another model or backend) → sinks opened
            → the new network on trial → sources and sinks changed → told

The newest request counts. Many in a row become one or two reloads. One that comes during a build lets that go on if it
asks for the same model, and gives it up otherwise; one that comes during a trial waits for its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config
from edgeinfer.daemon.assembly import open_decoder, open_sinks
from edgeinfer.daemon.changes import ReloadPlan, plan_reload
from edgeinfer.daemon.selection import Background, build
from edgeinfer.daemon.serving import Served, Serving, network, rehearse
from edgeinfer.daemon.sourceset import SourceSet
from edgeinfer.errors import ConfigError, EdgeinferError
from edgeinfer.flow.inference import Pipeline
from edgeinfer.flow.publisher import Publisher
from edgeinfer.interfaces import Backend, Decoder, Sink
from edgeinfer.messages import Reason, ReloadReport

log = logging.getLogger(__name__)

TRIAL_PATIENCE_S = 5.0
"""Without frames a trial has no end; the rest of a reload waits no longer for it than this."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that has been read and checked, and the way to it."""

    config: Config
    plan: ReloadPlan
    model: Model
    decoder: Decoder

    def wants_same_backend(self, other: Prepared) -> bool:
        """Whether one backend does for both: they may differ in their thresholds, sources and sinks."""
        return self._backend_key() == other._backend_key()

    def _backend_key(self) -> object:
        settings = msgspec.structs.replace(self.config.model, score=None, iou=None)
        return self.model, settings, self.config.backend


@dataclass(frozen=True, slots=True)
class Trial:
    """A reload whose network is on trial: what is still to be done, and the sinks that wait for it."""

    prepared: Prepared
    sinks: dict[str, Sink]


class Reloader:
    """Used from the main thread. `on_started` and `on_finished` are called there, once for every reload.

    `read` gives the configuration anew and raises EdgeinferError; None where the daemon was started without a file.
    `config` is the one in force.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config] | None,
        serving: Serving,
        sources: SourceSet,
        publisher: Publisher,
    ) -> None:
        self.config = config
        self.on_started: list[Callable[[], None]] = []
        self.on_finished: list[Callable[[ReloadReport], None]] = []
        self._read = read
        self._serving = serving
        self._sources = sources
        self._publisher = publisher
        self._report = ReloadReport(requested=0, finished=0)
        self._taken = 0
        self._reading: Background[Prepared] | None = None
        self._building: tuple[Prepared, Background[Backend]] | None = None
        self._trial: Trial | None = None
        self._given_up: list[Background[Backend]] = []

    def request(self, count: int) -> None:
        """Tells how many reloads have been asked for so far."""
        if count != self._report.requested:
            self._tell(msgspec.structs.replace(self._report, requested=count))

    def poll(self, pipeline: Pipeline) -> None:
        """Takes the step that is due, if one is. Raises EdgeinferError where the daemon can't go on."""
        if self._trial is not None:
            if self._serving.trial_s > TRIAL_PATIENCE_S:
                self._apply(self._trial, pipeline)
            return
        if self._reading is not None:
            if not self._reading.is_alive():
                reading, self._reading = self._reading, None
                self._decide(reading, pipeline)
        elif self._report.requested > self._taken:
            self._begin()
        elif self._building is not None and not self._building[1].is_alive():
            (prepared, building), self._building = self._building, None
            self._use(prepared, building, pipeline)

    def stop(self) -> None:
        """Gives up what has been begun: the daemon ends."""
        self._give_up_build()
        if self._trial is not None:
            _close(self._trial.sinks)
            self._trial = None

    @property
    def threads(self) -> list[threading.Thread]:
        """What a normal exit of the process would wait for."""
        building = [self._building[1]] if self._building is not None else []
        reading = [self._reading] if self._reading is not None else []
        return [*reading, *building, *self._given_up]

    def _begin(self) -> None:
        idle = self._report.finished == self._taken
        self._taken = self._report.requested
        if idle:
            for call in self.on_started:  # hook: RELOADING=1
                call()
        now, config, read, failed = self._serving.now, self.config, self._read, list(self._publisher.failed_sinks)
        assert now is not None  # noqa: S101 (`poll` is called once something serves)
        self._reading = Background("reload", lambda _: prepare(read, config, now, failed))
        self._reading.start()

    def _decide(self, reading: Background[Prepared], pipeline: Pipeline) -> None:
        prepared = reading.result
        if prepared is None:
            self._give_up_build()
            self._fail(reading.error or EdgeinferError("the configuration was not read"))
        elif not prepared.plan.build:
            self._give_up_build()
            self._change(prepared, None, pipeline)
        elif self._building is not None and prepared.wants_same_backend(self._building[0]):
            self._building = prepared, self._building[1]
        else:
            self._give_up_build()
            self._build(prepared)

    def _build(self, prepared: Prepared) -> None:
        log.info("reload: preparing %s; %s serves meanwhile", prepared.model.id, self._serving.backend_name)
        tell, serving = self._serving.tell, self._serving.backend_name
        building = Background("build", lambda cancel: build_and_try(prepared, tell, serving, cancel))
        self._building = prepared, building
        building.start()

    def _use(self, prepared: Prepared, building: Background[Backend], pipeline: Pipeline) -> None:
        if building.result is None:
            self._fail(building.error or EdgeinferError("the model was not built"))
        else:
            self._change(prepared, building.result, pipeline)

    def _change(self, prepared: Prepared, backend: Backend | None, pipeline: Pipeline) -> None:
        """Everything that may fail has been tried, but for the sinks; then the network, then the rest."""
        now, new_model = self._serving.now, backend is not None
        assert now is not None  # noqa: S101 (see `_begin`)
        sinks: dict[str, Sink] = {}
        try:
            swapped = network(prepared.model, prepared.decoder, backend or now.network.backend)
            sinks = open_sinks({name: prepared.config.sinks[name] for name in prepared.plan.open_sinks})
        except EdgeinferError as error:
            if backend is not None:
                backend.close()
            self._fail(error)
            return
        self._trial = Trial(prepared, sinks)
        if new_model or prepared.plan.decoder:
            served = Served(prepared.config, prepared.model, swapped)
            self._serving.swap(served, lambda e: self._tried(e, pipeline), new_model)
        else:
            self._apply(self._trial, pipeline)

    def _tried(self, failure: EdgeinferError | None, pipeline: Pipeline) -> None:
        """The trial has ended; where it took too long, the rest of the reload has been done already."""
        trial = self._trial
        if trial is not None and failure is None:
            self._apply(trial, pipeline)
        elif trial is not None and failure is not None:
            self._trial = None
            _close(trial.sinks)
            self._fail(_rolled_back(failure, self._serving))
        elif failure is not None:
            self._rolled_back_late(_rolled_back(failure, self._serving))

    def _apply(self, trial: Trial, pipeline: Pipeline) -> None:
        """Sources, sinks and limits: nothing here can fail."""
        self._trial = None
        plan, config = trial.prepared.plan, trial.prepared.config
        self.config = config
        pipeline.limit = config.frames
        pipeline.batching = config.batching
        self._sources.apply(config.sources, plan.restart, config.frames)
        if plan.close_sinks or trial.sinks:
            self._publisher.change_sinks(plan.close_sinks, trial.sinks)
        text = "; ".join(plan.changes) or "nothing has changed"
        log.info("reloaded: %s", text)
        self._serving.tell(Reason("reloaded", text))
        self._finish(True, text, plan.changes)

    def _fail(self, error: EdgeinferError) -> None:
        log.warning("reload failed: %s; the configuration stays as it was", error)
        self._serving.tell(Reason("reload-failed", str(error)))
        self._finish(False, str(error), ())

    def _rolled_back_late(self, error: EdgeinferError) -> None:
        """The rest of the reload stays; its model does not."""
        now = self._serving.now
        assert now is not None  # noqa: S101 (it serves again)
        self.config = msgspec.structs.replace(self.config, model=now.config.model, backend=now.config.backend)
        log.warning("%s", error)
        self._serving.tell(Reason("reload-failed", str(error)))
        self._tell(msgspec.structs.replace(self._report, ok=False, text=str(error), changes=()))

    def _finish(self, ok: bool, text: str, changes: tuple[str, ...]) -> None:
        requested = self._report.requested
        self._tell(ReloadReport(requested=requested, finished=self._taken, ok=ok, text=text, changes=changes))
        for call in self.on_finished:  # hook: READY=1
            call(self._report)

    def _tell(self, report: ReloadReport) -> None:
        self._report = report
        self._publisher.set_fact("reload", report)

    def _give_up_build(self) -> None:
        if self._building is not None:
            self._building[1].cancel(lambda backend: backend.close())
            alive = [thread for thread in self._given_up if thread.is_alive()]
            self._given_up = [*alive, self._building[1]]
            self._building = None


def prepare(read: Callable[[], Config] | None, config: Config, now: Served, failed: Collection[str]) -> Prepared:
    """Reads the configuration and checks it against what runs; `failed` are sinks that have been given up.

    May take as long as reading a model's file does. Raises EdgeinferError.
    """
    if read is None:
        raise ConfigError("there is no file to reload", "start the daemon with --config FILE")
    wanted = read()
    model = load_model(wanted.model.path, wanted.model.card, wanted.model.sha256)
    plan = plan_reload(config, wanted, model == now.model, failed)
    decoder = open_decoder(model, wanted.model)
    if not plan.build:
        decoder.check(now.network.backend.output_specs, len(model.card.labels))
    return Prepared(wanted, plan, model, decoder)


def build_and_try(
    prepared: Prepared, tell: Callable[[Reason | None], None], serving: str, cancel: threading.Event
) -> Backend:
    """The backend that the reload asks for; a picture has been through it. Raises EdgeinferError."""
    backend = build(prepared.model, prepared.config, prepared.decoder.filter, tell, serving, cancel)
    try:
        rehearse(network(prepared.model, prepared.decoder, backend))
    except BaseException:
        backend.close()
        raise
    return backend


def _close(sinks: dict[str, Sink]) -> None:
    for sink in sinks.values():
        sink.close()


def _rolled_back(failure: EdgeinferError, serving: Serving) -> EdgeinferError:
    return EdgeinferError(
        f"the new model failed in its first frames: {failure.message}; back on {serving.backend_name}", failure.hint
    )
