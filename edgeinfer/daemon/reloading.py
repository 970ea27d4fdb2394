"""A changed configuration file → a changed daemon, step by step, while it runs. Whole or not at all.

    request → read and check (a thread) → build (a thread, only for another model or backend) → sinks opened
            → the new network on trial → sources and sinks changed → told

The newest request counts. Many in a row become one or two reloads. One that comes during a build lets that go on if it
asks for the same model, and gives it up otherwise; one that comes during a trial waits for its end. One exception to
"whole": where a trial takes too long, the rest is applied meanwhile, and stays if the model is rolled back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import msgspec

from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config
from edgeinfer.daemon.assembly import close_sinks, open_decoder, open_sinks
from edgeinfer.daemon.background import Background, Workshop
from edgeinfer.daemon.changes import ReloadPlan, plan_reload
from edgeinfer.daemon.rehearsal import rehearse
from edgeinfer.daemon.selection import Opened, build, teller
from edgeinfer.daemon.serving import Served, Serving, failure_of, network
from edgeinfer.errors import ConfigError, EdgeinferError, TemporaryError
from edgeinfer.flow.succession import Verdict
from edgeinfer.interfaces import Backend, Decoder, Sink
from edgeinfer.messages import Reason, ReloadReport
from edgeinfer.systemd import notify
from edgeinfer.telemetry.bulletin import Bulletin

log = logging.getLogger(__name__)

TRIAL_PATIENCE_S = 5.0
"""Without frames a trial has no end; the rest of a reload waits no longer for it than this."""


@dataclass(frozen=True, slots=True)
class PreparedReload:
    """A configuration that has been read and checked, and the way to it."""

    config: Config
    plan: ReloadPlan
    model: Model
    decoder: Decoder

    def wants_same_backend(self, other: PreparedReload) -> bool:
        """Whether one backend does for both: they may differ in their thresholds, sources and sinks."""
        return self._backend_key() == other._backend_key()

    def _backend_key(self) -> object:
        settings = msgspec.structs.replace(self.config.model, score=None, iou=None)
        return self.model, settings, self.config.backend


@dataclass(slots=True)
class PendingReload:
    """A reload whose network is on trial, and the sinks that wait for its end.

    `opened`: its backend, where that is another. `applied`: that took too long, and the rest of the reload has been
    done already.
    """

    prepared: PreparedReload
    sinks: dict[str, Sink]
    verdict: Verdict
    opened: Opened | None
    since_s: float = field(default_factory=time.monotonic)
    applied: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a reload changes, and asks. `apply` does what can't fail: it changes sources, sinks and limits.

    `rolled_back` hears that the model that serves is no longer the one that did when `apply` was called last.
    `read` gives the configuration anew and raises EdgeinferError; None where the daemon was started without a file.
    `failed_sinks` names the sinks that have been given up.
    """

    serving: Serving
    apply: Callable[[Config, ReloadPlan, Mapping[str, Sink]], None]
    rolled_back: Callable[[], None]
    read: Callable[[], Config] | None
    failed_sinks: Callable[[], Collection[str]]
    bulletin: Bulletin
    workshop: Workshop


class Reloader:
    """Used from the main thread, but for `order`. `config` is the one in force.

    systemd hears of every reload's beginning and end.
    """

    def __init__(self, config: Config, around: Surroundings) -> None:
        self.config = config
        self.report = ReloadReport(requested=0, finished=0)
        self._around, self._serving = around, around.serving
        self._taken = 0
        self._reading: tuple[Served, Background[PreparedReload]] | None = None
        self._building: tuple[PreparedReload, Background[Opened]] | None = None
        self._trial: PendingReload | None = None
        self._signals = self._ordered = 0
        self._orders: SimpleQueue[Future[ReloadReport]] = SimpleQueue()
        self._waiting: list[tuple[int, Future[ReloadReport]]] = []
        self._ended = False

    def request(self, count: int) -> None:
        """Tells how many reloads signals have asked for so far."""
        self._signals = count
        self._count()

    def order(self) -> Future[ReloadReport]:
        """Asks for a reload, from any thread: what it reads is read after this. Raises TemporaryError in the future
        where the daemon ends first.
        """
        order: Future[ReloadReport] = Future()
        self._orders.put(order)
        if self._ended:
            self._refuse_orders()
        return order

    def poll(self) -> None:
        """Takes the step that is due, if one is. Only while something serves."""
        self._take_orders()
        if self._trial is not None and self._await(self._trial):
            return
        if self._reading is not None:
            if self._reading[1].done:
                (against, reading), self._reading = self._reading, None
                self._decide(reading.outcome(), against)
        elif self.report.requested > self._taken:
            self._begin()
        elif self._building is not None and self._building[1].done:
            (prepared, building), self._building = self._building, None
            self._use(prepared, building.outcome())

    def stop(self) -> None:
        """Gives up what has been begun: the daemon ends."""
        self._ended = True
        self._refuse_orders()
        self._give_up_build()
        if self._trial is not None and not self._trial.applied:
            close_sinks(self._trial.sinks)
        self._trial = None

    def _count(self) -> None:
        asked = self._signals + self._ordered
        if asked != self.report.requested:
            self._tell(msgspec.structs.replace(self.report, requested=asked))

    def _take_orders(self) -> None:
        for order in self._new_orders():
            self._ordered += 1
            self._count()
            self._waiting.append((self.report.requested, order))

    def _new_orders(self) -> Iterator[Future[ReloadReport]]:
        try:
            while True:
                yield self._orders.get_nowait()
        except Empty:
            return

    def _refuse_orders(self) -> None:
        waiting, self._waiting = self._waiting, []
        for order in (*(order for _, order in waiting), *self._new_orders()):
            order.set_exception(TemporaryError("the daemon ends", "start it again"))

    def _begin(self) -> None:
        if self.report.finished == self._taken:
            notify.reloading()
        self._taken = self.report.requested
        now, config, read, failed = self._serving.now, self.config, self._around.read, self._around.failed_sinks()
        assert now is not None  # noqa: S101 (see `poll`)
        reading = self._around.workshop.begin("reload", lambda _: prepare(read, config, now, failed))
        self._reading = now, reading

    def _decide(self, prepared: PreparedReload | EdgeinferError, against: Served) -> None:
        """`against` is what served when the configuration was read; where that has changed, it is read once more."""
        if against is not self._serving.now:
            self._begin()
        elif isinstance(prepared, EdgeinferError):
            self._give_up_build()
            self._fail(prepared)
        elif not prepared.plan.build:
            self._give_up_build()
            self._change(prepared, None)
        elif self._building is not None and prepared.wants_same_backend(self._building[0]):
            self._building = prepared, self._building[1]
        else:
            self._give_up_build()
            self._build(prepared)

    def _build(self, prepared: PreparedReload) -> None:
        serving = self._serving.backend_name
        log.info("reload: preparing %s; %s serves meanwhile", prepared.model.id, serving)
        tell = teller(self._around.bulletin, serving)

        def work(cancel: threading.Event) -> Opened:
            opened = build(prepared.model, prepared.config, prepared.decoder.filter, tell, cancel)
            tried(prepared, opened.backend, cancel)
            return opened

        self._building = prepared, self._around.workshop.begin("build", work)

    def _use(self, prepared: PreparedReload, opened: Opened | EdgeinferError) -> None:
        if isinstance(opened, EdgeinferError):
            self._fail(opened)
        else:
            self._change(prepared, opened)

    def _change(self, prepared: PreparedReload, opened: Opened | None) -> None:
        """Everything that may fail has been tried, but for the sinks; then the network, then the rest."""
        now, backend = self._serving.now, None if opened is None else opened.backend
        assert now is not None  # noqa: S101 (see `poll`)
        try:
            swapped = network(prepared.model, prepared.decoder, backend or now.network.backend)
            sinks = open_sinks({name: prepared.config.sinks[name] for name in prepared.plan.open_sinks})
        except EdgeinferError as error:
            if backend is not None:
                backend.close()
            self._fail(error)
            return
        if backend is None and not prepared.plan.decoder:
            self._apply(prepared, sinks)
            return
        served = Served(prepared.config, prepared.model, swapped)
        self._trial = PendingReload(prepared, sinks, self._serving.swap(served, new_model=opened is not None), opened)

    def _await(self, trial: PendingReload) -> bool:
        """Acts on how a trial has ended. Whether everything else has to wait for that."""
        if trial.verdict.done():
            self._trial = None
            self._serving.hear()
            self._judged(trial, failure_of(trial.verdict))
        elif not trial.applied and time.monotonic() - trial.since_s > TRIAL_PATIENCE_S:
            trial.applied = True
            self._apply(trial.prepared, trial.sinks)
        return not trial.applied

    def _judged(self, trial: PendingReload, failure: EdgeinferError | None) -> None:
        opened = trial.opened
        if opened is not None and failure is None and trial.verdict.result():
            self._serving.go_on(opened)
        if failure is not None:
            back = f"the new model failed in its first frames: {failure.message}; back on {self._serving.backend_name}"
            failure = EdgeinferError(back, failure.hint)
        if trial.applied and failure is not None:
            self._rolled_back_late(failure)
        elif failure is not None:
            close_sinks(trial.sinks)
            self._fail(failure)
        elif not trial.applied and trial.verdict.result():
            self._apply(trial.prepared, trial.sinks)
        elif not trial.applied:  # the run has ended first
            close_sinks(trial.sinks)

    def _apply(self, prepared: PreparedReload, sinks: Mapping[str, Sink]) -> None:
        """Nothing here can fail."""
        self._around.apply(prepared.config, prepared.plan, sinks)
        self.config = prepared.config
        text = "; ".join(prepared.plan.changes) or "nothing has changed"
        log.info("reloaded: %s", text)
        self._around.bulletin.news = Reason("reloaded", text)
        self._finish(True, text, prepared.plan.changes)

    def _fail(self, error: EdgeinferError) -> None:
        self._keep_model()
        log.warning("reload failed: %s; the configuration stays as it was", error)
        self._around.bulletin.news = Reason("reload-failed", str(error))
        self._finish(False, str(error), ())

    def _rolled_back_late(self, error: EdgeinferError) -> None:
        """The rest of the reload stays; its model does not."""
        self._keep_model()
        self._around.rolled_back()
        log.warning("%s", error)
        self._around.bulletin.news = Reason("reload-failed", str(error))
        self._tell(msgspec.structs.replace(self.report, ok=False, text=str(error), changes=()))

    def _keep_model(self) -> None:
        """Whatever was asked for: the model in force is the one that serves."""
        now = self._serving.now
        assert now is not None  # noqa: S101 (see `poll`)
        self.config = msgspec.structs.replace(self.config, model=now.config.model, backend=now.config.backend)

    def _finish(self, ok: bool, text: str, changes: tuple[str, ...]) -> None:
        requested = self.report.requested
        self._tell(ReloadReport(requested=requested, finished=self._taken, ok=ok, text=text, changes=changes))
        notify.ready(text)
        done = [order for number, order in self._waiting if number <= self._taken]
        self._waiting = [(number, order) for number, order in self._waiting if number > self._taken]
        for order in done:
            order.set_result(self.report)

    def _tell(self, report: ReloadReport) -> None:
        self.report = report
        self._around.bulletin.note("reload", report)

    def _give_up_build(self) -> None:
        if self._building is not None:
            self._building[1].cancel(lambda opened: opened.backend.close())
            self._building = None


def prepare(read: Callable[[], Config] | None, config: Config, now: Served, failed: Collection[str]) -> PreparedReload:
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
    return PreparedReload(wanted, plan, model, decoder)


def tried(prepared: PreparedReload, backend: Backend, cancel: threading.Event) -> Backend:
    """The backend, after a picture has been through it. Raises what is wrong, and closes it then."""
    try:
        rehearse(network(prepared.model, prepared.decoder, backend), cancel)
    except BaseException:
        backend.close()
        raise
    return backend
