"""The composition root: configuration → parts → a running data path → what there is to say at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config
from edgeinfer.daemon.assembly import close_sinks, model_info, open_decoder, open_sinks, wanted_size
from edgeinfer.daemon.background import Workshop
from edgeinfer.daemon.changes import ReloadPlan
from edgeinfer.daemon.desk import Desk, Running
from edgeinfer.daemon.failures import failures, reader_gone
from edgeinfer.daemon.instruments import Instruments, Shown
from edgeinfer.daemon.portrait import portrait
from edgeinfer.daemon.reloading import Reloader, Surroundings
from edgeinfer.daemon.serving import Serving
from edgeinfer.daemon.signals import Patience
from edgeinfer.daemon.sourceset import SourceSet
from edgeinfer.errors import ConfigError, EdgeinferError, FatalError
from edgeinfer.flow.batching import Batching
from edgeinfer.flow.compose import Identity
from edgeinfer.flow.delivery import Delivery
from edgeinfer.flow.inference import Inference
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.flow.network import Network
from edgeinfer.flow.publisher import Publisher
from edgeinfer.flow.stage import Stage
from edgeinfer.flow.statistics import Statistics
from edgeinfer.flow.succession import Succession
from edgeinfer.gpu.arena import arenas
from edgeinfer.interfaces import Blamable, Listening, Sink
from edgeinfer.isolation.nursery import nursery
from edgeinfer.messages import Reason
from edgeinfer.systemd import notify
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.watchdog.hearts import Heart, find_stall
from edgeinfer.web.viewing.desk import NoDesk
from edgeinfer.web.viewing.model import ModelView

JOIN_S = 0.4
"""Sources start no sooner after the socket was bound: a subscriber that waits tries again every 100 to 200 ms."""
TICK_S, LOADING_TICK_S = 0.1, 0.01
MAIN_PATIENCE = 3.0
"""The main thread reads files and imports plugins now and then: its deadline is so much longer."""
LAST_FRAMES = 1000
"""So many frames' times make the percentiles of a running daemon."""


class Daemon:
    """A run: `start`, `run`, `stop`. Used from the main thread, but for `snapshot`, `hearts` and `blame_engine`.

    The constructor checks everything that can be checked and binds the socket, so that a waiting subscriber misses
    nothing; `start` begins to load the model. Both raise EdgeinferError.
    """

    def __init__(
        self,
        config: Config,
        extra_sinks: Mapping[str, Sink] | None = None,
        read: Callable[[], Config] | None = None,
        root: Path = Path("/"),
        desk: Desk | None = None,
    ) -> None:
        """`extra_sinks` are sinks beside the configured ones; `root` is where /sys and /proc are.

        `read` gives the configuration anew, for `reload`; None where there is no file to read. `desk` changes it for
        those who ask through the API.
        """
        if not config.sources:
            raise ConfigError(
                "no sources", "--camera 0, --source URI, or sources in the config; --source demo: needs no camera"
            )
        self._config = config
        self._first_model = load_model(config.model.path, config.model.card, config.model.sha256)
        self._decoder = open_decoder(self._first_model, config.model)
        self.stats, self.bulletin, self._workshop = Statistics(), Bulletin(), Workshop()
        self.heart = Heart("main", patience=MAIN_PATIENCE)
        self._inference: Inference | None = None
        self._started_s = time.monotonic()
        sinks = open_sinks(config.sinks)
        self._bound_s = time.monotonic()
        publish = sinks.get("publish")
        self.endpoint = publish.endpoint if isinstance(publish, Listening) else None
        identity = Identity.new(model_info(self._first_model), list(config.sources))
        try:
            shown = Shown(self.snapshot, self.stats, identity.session, self._portrait, desk or NoDesk())
            self.instruments = Instruments(shown, self.bulletin, config.http, root)
        except EdgeinferError:
            close_sinks(sinks)
            raise
        self.sources = SourceSet(config.sources, config.frames, self.instruments.governor, self._sources_changed)
        all_sinks = {**sinks, **(extra_sinks or {}), **self.instruments.sinks}
        self._sinks = all_sinks
        self.publisher = Publisher(
            identity, self.sources.ledgers, all_sinks, self.stats, self.bulletin, picture=self.snapshot
        )
        self.serving = Serving(self._begin, self._announce, self.bulletin, self._workshop)
        around = Surroundings(
            self.serving,
            self._apply,
            self._fit,
            read,
            lambda: list(self.publisher.sinks.troubles),
            self.bulletin,
            self._workshop,
        )
        self.reloader = Reloader(config, around)
        if desk is not None:
            desk.serve(
                Running(lambda: self.reloader.config, lambda: self.model, around.failed_sinks, self.reloader.order)
            )
        self._fit()

    def start(self) -> None:
        """Publishes `info` and begins to load the model; `run` goes on from there."""
        self.publisher.start()
        self.instruments.start()
        self.serving.load(self._first_model, self._decoder, self._config)

    def run(self, stopped: Callable[[], bool], on_turn: Callable[[], None] = lambda: None) -> None:
        """Turns until all sources have ended or `stopped` says so; `on_turn` is called in between.

        Raises what `turn` raises.
        """
        while self.turn() and not stopped():
            on_turn()
            time.sleep(LOADING_TICK_S if self.loading else TICK_S)

    def turn(self) -> bool:
        """Takes the steps that have become possible. Whether the run goes on: false once all sources have ended.

        The model that has been loaded is started, the engine that has been built takes over, a changed configuration
        is applied. Raises EdgeinferError where nothing can run, and FatalError where a stage has died.
        """
        self.heart.beat()
        self._check_stages()
        self.serving.poll(may_start=time.monotonic() - self._bound_s > JOIN_S)
        if self._inference is None:
            return True
        self.sources.poll()
        arenas.settle()
        self.reloader.poll()
        return not reader_gone(self.publisher.sinks) and self.sources.alive

    def stop(self, patience: Patience) -> DaemonSnapshot:
        """Ends sources, then inference, then publishing; what is in flight is passed on while patience lasts.

        Returns what the whole run has done: `serving_s` up to the last result, every source that there ever was.
        """
        self.reloader.stop()
        self.serving.cancel()
        self.sources.stop()
        for capture in self.sources.captures.values():
            patience.join(capture, share=0.3)
        if self._inference is not None:
            self._inference.drain()
            patience.join(self._inference)
            self._inference.abort()
            self._inference.join(0.2)
        serving_s = self._serving_s
        self.publisher.close()
        patience.join(self.publisher)
        self.instruments.stop()
        nursery.close()
        latency_ms, sources = self.stats.percentiles(), self.sources.snapshots()
        return replace(self.snapshot(), serving_s=serving_s, sources=sources, latency_ms=latency_ms)

    @property
    def loading(self) -> bool:
        """Whether no source has been started yet."""
        return self._inference is None

    @property
    def model(self) -> Model:
        """The model that runs, or will run first."""
        now = self.serving.now
        return self._first_model if now is None else now.model

    @property
    def hung(self) -> bool:
        """Whether a thread has not ended that a normal exit of the process would wait for."""
        return self._workshop.busy or (self._inference is not None and self._inference.is_alive())

    def failures(self) -> dict[str, EdgeinferError]:
        """What went wrong although the run came to its end: sources and sinks that failed, by name."""
        return failures(self.sources.errors(), self.publisher.sinks)

    def snapshot(self) -> DaemonSnapshot:
        """The daemon as it is now. From any thread."""
        serving = self.serving.now  # read once: it may be another in a moment
        backend = None if serving is None else serving.network.backend
        return DaemonSnapshot(
            model=self._first_model.id if serving is None else serving.model.id,
            backend="" if backend is None else backend.name,
            detail="" if backend is None else backend.detail,
            versions={} if backend is None else backend.versions,
            engine_key=backend.engine_key if isinstance(backend, Blamable) else "",
            serving_s=None if serving is None else self._serving_s,
            sources={name: ledger.snapshot() for name, ledger in self.sources.books.items()},
            latency_ms=self.stats.percentiles(LAST_FRAMES),
            rate=self.instruments.governor.factor,
            subscribers=self.publisher.sinks.subscribers,
            machine=self.instruments.sampler.machine,
            bound=self.publisher.sinks.bound,
            sinks=self.publisher.sinks.snapshots,
            faults=self._faults(),
            news=self.bulletin.news,
            unused=self.bulletin.unused,
            shortage=self.bulletin.shortage,
        )

    def hearts(self) -> list[Heart]:
        """The stages that must be alive now. From any thread.

        The main thread is one only where somebody restarts the process: a person may stop it, with Ctrl-S for instance.
        """
        main = [self.heart] if notify.enabled() else []
        return main + [stage.heart for stage in self._stages if stage.is_alive()]

    def blame_engine(self) -> None:
        """The process is about to end for the sake of the engine that serves, if one does. From any thread."""
        backend = self.serving.backend
        if isinstance(backend, Blamable):
            backend.blame()

    @property
    def _stages(self) -> list[Stage]:
        return [self.publisher] if self._inference is None else [self._inference, self.publisher]

    @property
    def _serving_s(self) -> float | None:
        return None if self._inference is None else time.monotonic() - self._started_s

    def _faults(self) -> tuple[Reason, ...]:
        """What ended a stage for good, and a main loop that does not turn any more."""
        dead = [(stage.name, stage.error) for stage in self._stages if stage.error is not None]
        stall = find_stall([self.heart], self._config.watchdog.deadline_s)
        hangs = [] if stall is None else [Reason("supervisor", str(stall))]
        return (*(Reason(name, f"{type(error).__name__}: {error}") for name, error in dead), *hangs)

    def _check_stages(self) -> None:
        self.sources.check()
        for stage in self._stages:
            if isinstance(stage.error, EdgeinferError):
                raise stage.error
            if stage.error is not None:
                raise FatalError(f"{stage.name}: {type(stage.error).__name__}: {stage.error}")

    def _begin(self, network: Network) -> Succession:
        """Makes the data path around its first network and starts everything."""
        mailbox = Mailbox()
        batching = Batching(mailbox, self.bulletin, self._config.batching)
        batching.serve(network.backend)
        delivery = Delivery(self.sources.ledgers, self.publisher, self._config.frames)
        self._started_s = time.monotonic()
        self._inference = Inference(network, batching, delivery)
        self._inference.start()
        self.sources.start(mailbox)
        return self._inference.networks

    def _portrait(self) -> ModelView:
        """Of the model that serves, and until then of the one that will. From any thread."""
        now = self.serving.now
        return portrait(self.model, self._config if now is None else now.config, self.snapshot())

    def _announce(self, network: Network) -> None:
        self.publisher.set_backend(network.model, network.backend.name, network.backend.versions)

    def _sources_changed(self) -> None:
        self.publisher.set_sources(self.sources.books, list(self.sources.ledgers.values()))

    def _apply(self, config: Config, plan: ReloadPlan, sinks: Mapping[str, Sink]) -> None:
        """The part of a reload that can't fail."""
        assert self._inference is not None  # noqa: S101 (`turn` polls the reloader only once it is there)
        self._inference.delivery.limit = config.frames
        self._inference.batching.config = config.batching
        self._sinks = {name: sink for name, sink in self._sinks.items() if name not in plan.close_sinks} | dict(sinks)
        self._fit()
        self.sources.apply(config.sources, plan.restart, config.frames)
        if plan.close_sinks or sinks:
            self.publisher.change_sinks(plan.close_sinks, sinks)

    def _fit(self) -> None:
        """Has sources give pictures as the model and the sinks want them that there are now."""
        self.sources.fit(wanted_size(self.model, self._sinks.values()))
