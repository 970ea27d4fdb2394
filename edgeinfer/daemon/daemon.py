"""The composition root: configuration → parts → a running pipeline → an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config
from edgeinfer.daemon.assembly import model_info, open_decoder, open_sinks
from edgeinfer.daemon.instruments import Watch, thread_errors
from edgeinfer.daemon.reloading import Reloader
from edgeinfer.daemon.serving import Serving
from edgeinfer.daemon.signals import Patience
from edgeinfer.daemon.sourceset import SourceSet
from edgeinfer.errors import ConfigError, EdgeinferError, FatalError, TemporaryError
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.compose import Identity
from edgeinfer.flow.inference import Network, Parts, Pipeline
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.flow.publisher import Publisher, reason_of
from edgeinfer.flow.statistics import Statistics
from edgeinfer.interfaces import Backend, Sink
from edgeinfer.messages import Reason
from edgeinfer.systemd import notify
from edgeinfer.telemetry.snapshot import SourceSnapshot
from edgeinfer.watchdog.hearts import Heart

JOIN_S = 0.4
"""Sources start no sooner after the socket was bound: a subscriber that waits tries again every 100 to 200 ms."""
MAIN_PATIENCE = 3.0
"""The main thread reads files and imports plugins now and then: its deadline is so much longer."""
STDOUT_SINKS = ("console", "sinks.jsonl")
"""Sinks that write to standard output; what reads it may go away, and the run then has no more purpose."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. `seconds` is from the start of the sources to the last result, `detail` the backend's."""

    model: str
    backend: str
    detail: str
    versions: Mapping[str, str]
    seconds: float
    sources: Mapping[str, SourceSnapshot]
    latency_ms: Mapping[str, Mapping[str, float]]


class Daemon:
    """A run: `start`, `running` until it is false, `stop`. Used from the main thread.

    The constructor checks everything that can be checked and binds the socket, so that a waiting subscriber misses
    nothing; `start` loads the model. Both raise EdgeinferError. `read` gives the configuration anew, for `reload`;
    None where there is no file to read.
    """

    def __init__(
        self,
        config: Config,
        extra_sinks: Mapping[str, Sink] | None = None,
        read: Callable[[], Config] | None = None,
        root: Path = Path("/"),
    ) -> None:
        """`extra_sinks` are sinks beside the configured ones; `root` is where /sys and /proc are."""
        if not config.sources:
            raise ConfigError(
                "no sources", "--camera 0, --source URI, or sources in the config; --source demo: needs no camera"
            )
        self._config = config
        self._first_model = load_model(config.model.path, config.model.card, config.model.sha256)
        self._decoder = open_decoder(self._first_model, config.model)
        self.stats = Statistics()
        self.heart = Heart("main", patience=MAIN_PATIENCE)
        self._pipeline: Pipeline | None = None
        self._started_s = time.monotonic()
        sinks = open_sinks(config.sinks)
        self._bound_s = time.monotonic()
        self.endpoint: str | None = getattr(sinks.get("publish"), "endpoint", None)
        self.sources = SourceSet(config.sources, config.frames)
        identity = Identity.new(model_info(self._first_model), list(config.sources))
        self.publisher = Publisher(identity, self.sources.ledgers, {**sinks, **(extra_sinks or {})}, self.stats)
        self.serving = Serving(self.publisher, self._begin)
        self.watch = self._watch(sinks, root)
        self.sources.governor = self.watch.governor
        self.reloader = Reloader(config, read, self.serving, self.sources, self.publisher)

    def start(self) -> None:
        """Publishes `info` and begins to load the model; `running` goes on from there."""
        self.publisher.start()
        self.watch.start()
        self.serving.load(self._first_model, self._decoder, self._config)

    @property
    def loading(self) -> bool:
        """Whether no source has been started yet."""
        return self._pipeline is None

    @property
    def model(self) -> Model:
        """The model that runs, or will run first."""
        return self._first_model if self.serving.now is None else self.serving.now.model

    @property
    def backend_name(self) -> str:
        """What runs the model now, empty until something does."""
        return self.serving.backend_name

    @property
    def news(self) -> Reason | None:
        """What there is to say of the daemon as a whole."""
        return self.serving.news

    @property
    def ledgers(self) -> dict[str, Ledger]:
        """The books of the sources that the run has now."""
        return self.sources.books

    def running(self) -> bool:
        """Whether the run goes on: false once all sources have ended. Call it often: steps are taken here.

        The model that has been loaded is started, the engine that has been built takes over, a changed configuration
        is applied. Raises EdgeinferError where nothing can run, and FatalError where a stage has died.
        """
        self.heart.beat()
        self.watch.turn()
        self._check_stages()
        self.serving.poll(may_start=time.monotonic() - self._bound_s > JOIN_S)
        if self._pipeline is None:
            return True
        self.sources.poll()
        self.reloader.poll(self._pipeline)
        return not self.reader_gone and self.sources.alive

    def reload(self, requests: int) -> None:
        """Asks for the configuration to be read again and applied: `requests` times so far. `running` does it."""
        self.reloader.request(requests)

    def _check_stages(self) -> None:
        self.sources.hung.check()
        for stage in (self._pipeline, self.publisher):
            if stage is not None and stage.error is not None:
                if isinstance(stage.error, EdgeinferError):
                    raise stage.error
                raise FatalError(f"{stage.name}: {type(stage.error).__name__}: {stage.error}")

    def _begin(self, network: Network) -> Pipeline:
        """Makes the pipeline around its first network and starts everything."""
        mailbox = Mailbox(network.backend.lane_depth)
        parts = Parts(network, mailbox, self.sources.ledgers, self.publisher, self.sources.captures)
        self._pipeline = Pipeline(parts, self._config.batching, self._config.frames)
        self._pipeline.start()
        self._started_s = time.monotonic()
        self.sources.start(mailbox, self.publisher)
        return self._pipeline

    def stop(self, patience: Patience) -> Summary:
        """Ends sources, then inference, then publishing; what is in flight is passed on while patience lasts."""
        self.reloader.stop()
        self.serving.cancel()
        self.sources.stop()
        for capture in self.sources.captures.values():
            patience.join(capture, share=0.3)
        if self._pipeline is not None:
            self._pipeline.drain()
            patience.join(self._pipeline)
            self._pipeline.abort()
            self._pipeline.join(0.2)
        seconds = time.monotonic() - self._started_s
        self.publisher.close()
        patience.join(self.publisher)
        self.watch.stop()
        return Summary(
            self.model.id,
            self.backend_name,
            "" if self._backend is None else self._backend.detail,
            self.publisher.versions,
            seconds,
            self.sources.snapshots(),
            self.stats.percentiles(),
        )

    def hearts(self) -> list[Heart]:
        """The stages that must be alive now. The main thread is one only where somebody restarts the process: a
        person may stop it, with Ctrl-S for instance. Called by the judge, like all down to `blame_engine`."""
        main = [self.heart] if notify.enabled() else []
        stages = [stage.heart for stage in (self._pipeline, self.publisher) if stage is not None and stage.is_alive()]
        return main + stages

    @property
    def infer_p99_ms(self) -> float:
        """The 99th percentile of inference so far, 0 before the first result."""
        return self.stats.percentiles().get("infer", {}).get("p99", 0.0)

    @property
    def serving_s(self) -> float | None:
        """For how many seconds the sources have been running; None while they are not."""
        return None if self._pipeline is None else time.monotonic() - self._started_s

    def books(self) -> list[SourceSnapshot]:
        """How every source is."""
        return [ledger.snapshot() for ledger in list(self.sources.books.values())]

    @property
    def engine_key(self) -> str:
        """The key of the TensorRT engine that serves, empty where none does."""
        return str(getattr(self._backend, "engine_key", ""))

    @property
    def _backend(self) -> Backend | None:
        return None if self.serving.now is None else self.serving.now.network.backend

    def blame_engine(self) -> None:
        """The process is about to end for the sake of the engine that serves, if one does."""
        blame = getattr(self._backend, "blame", None)
        if blame is not None:
            blame()

    def failures(self) -> dict[str, EdgeinferError]:
        """What went wrong although the run came to its end: sources and sinks that failed, by name."""
        found: dict[str, EdgeinferError] = {f"source {name}": error for name, error in self.source_errors().items()}
        for name, trouble in list(self.publisher.failed_sinks.items()):
            if not _is_reader_of_stdout(name, trouble):
                hint = "what came after that was not written there"
                found[name] = TemporaryError(f"{name}: {reason_of(trouble)}", hint)
        for name, count in self.publisher.unwritten.items():
            found[name] = TemporaryError(f"{name}: {count} messages were not written", "its reader is too slow")
        return found

    @property
    def reader_gone(self) -> bool:
        """Whether whoever read our standard output has closed it."""
        return any(_is_reader_of_stdout(name, error) for name, error in list(self.publisher.failed_sinks.items()))

    @property
    def hung(self) -> bool:
        """Whether a thread has not ended that a normal exit of the process would wait for."""
        threads = (*self.serving.threads, *self.reloader.threads, self._pipeline)
        return any(thread is not None and thread.is_alive() for thread in threads)

    def source_errors(self) -> dict[str, EdgeinferError]:
        """The sources that failed, so far."""
        return self.sources.errors()

    def _watch(self, sinks: Mapping[str, Sink], root: Path) -> Watch:
        """Binds the HTTP port; where that fails nothing stays open."""
        try:
            return Watch(
                self.publisher,
                self.stats,
                lambda: self.sources.books,
                lambda: thread_errors(inference=self._pipeline, publisher=self.publisher),
                self._config.http,
                root,
            )
        except EdgeinferError:
            for sink in sinks.values():
                sink.close()
            raise


def _is_reader_of_stdout(name: str, error: Exception) -> bool:
    return isinstance(error, BrokenPipeError) and name in STDOUT_SINKS
