"""The composition root: configuration → parts → a running pipeline → an exit code."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeinfer import plugins, strict
from edgeinfer.accounting import Ledger, Snapshot
from edgeinfer.capture import CaptureThread, Job
from edgeinfer.card import Model, load_model
from edgeinfer.config import FALLBACK, Config, ModelConfig, PluginConfig, SourceConfig
from edgeinfer.engines import Background, Choice, choose, upgrade
from edgeinfer.errors import ConfigError, EdgeinferError, FatalError, TemporaryError
from edgeinfer.interfaces import Backend, Decoder, Sink, Source
from edgeinfer.mailbox import Mailbox
from edgeinfer.messages import ModelInfo, Reason
from edgeinfer.pipeline import Parts, Pipeline
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.publisher import Identity, Publisher, reason_of
from edgeinfer.signals import Patience
from edgeinfer.statistics import Statistics
from edgeinfer.watch import Watch, thread_errors

log = logging.getLogger(__name__)

JOIN_S = 0.4
"""Sources start no sooner after the socket was bound: a subscriber that waits tries again every 100 to 200 ms."""
STDOUT_SINKS = ("console", "sinks.jsonl")
"""Sinks that write to standard output; what reads it may go away, and the run then has no more purpose."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. `seconds` is from the start of the sources to the last result."""

    model: str
    backend: str
    versions: Mapping[str, str]
    seconds: float
    sources: Mapping[str, Snapshot]
    latency_ms: Mapping[str, Mapping[str, float]]


class Daemon:
    """A run: `start`, `running` until it is false, `stop`. Used from the main thread.

    The constructor checks everything that can be checked and binds the socket, so that a waiting subscriber misses
    nothing; `start` loads the model. Both raise EdgeinferError.
    """

    def __init__(self, config: Config, extra_sinks: Mapping[str, Sink] | None = None, root: Path = Path("/")) -> None:
        """`extra_sinks` are sinks beside the configured ones; `root` is where /sys and /proc are."""
        if not config.sources:
            raise ConfigError(
                "no sources", "--camera 0, --source URI, or sources in the config; --source demo: needs no camera"
            )
        self._config = config
        self.model = load_model(config.model.path, config.model.card, config.model.sha256)
        self._decoder = open_decoder(self.model, config.model)
        self.ledgers = {name: Ledger(time.monotonic_ns) for name in config.sources}
        self.stats = Statistics()
        self.backend_name = ""
        self._captures: dict[str, CaptureThread] = {}
        self._pipeline: Pipeline | None = None
        self._loading: Background[Choice] | None = None
        self._upgrade: Background[Backend] | None = None
        self._instead: Callable[[], Backend] | None = None
        self.news: Reason | None = None
        self._started_s = time.monotonic()
        sinks = open_sinks(config.sinks)
        self._bound_s = time.monotonic()
        self.endpoint: str | None = getattr(sinks.get("publish"), "endpoint", None)
        identity = Identity.new(model_info(self.model), list(config.sources))
        self.publisher = Publisher(identity, self.ledgers, {**sinks, **(extra_sinks or {})}, self.stats)
        self.watch = self._watch(sinks, root)

    def start(self) -> None:
        """Publishes `info` and begins to load the model; `running` goes on from there."""
        self.publisher.start()
        self.watch.start()
        self._loading = Background("model", lambda _: choose(self.model, self._config))
        self._loading.start()

    @property
    def loading(self) -> bool:
        """Whether no source has been started yet."""
        return self._pipeline is None

    def running(self) -> bool:
        """Whether the run goes on: false once all sources have ended. Call it often: steps are taken here.

        The model that has been loaded is started, the engine that has been built takes over. Raises EdgeinferError
        where nothing can run, and FatalError where a stage has died.
        """
        self.watch.turn()
        self._check_stages()
        if self._loading is not None and not self._loading.is_alive() and time.monotonic() - self._bound_s > JOIN_S:
            loaded, self._loading = self._loading, None
            self._start_with(loaded)
        if self._upgrade is not None and not self._upgrade.is_alive():
            ready, self._upgrade = self._upgrade, None
            self._take_over(ready)
        if self._pipeline is None:
            return True
        return not self.reader_gone and any(capture.is_alive() for capture in self._captures.values())

    def _start_with(self, loaded: Background[Choice]) -> None:
        if loaded.result is None:
            raise loaded.error or FatalError("the model was not loaded")
        if loaded.result.now is not None:
            self._serve(loaded.result.now)
        self._instead = loaded.result.instead
        if loaded.result.later is not None:
            self._upgrade = upgrade(loaded.result.later, self._tell, self.backend_name)
            self._upgrade.start()

    def _check_stages(self) -> None:
        for stage in (self._pipeline, self.publisher):
            if stage is not None and stage.error is not None:
                if isinstance(stage.error, EdgeinferError):
                    raise stage.error
                raise FatalError(f"{stage.name}: {type(stage.error).__name__}: {stage.error}")

    def _serve(self, backend: Backend) -> None:
        """Makes the pipeline around its first backend and starts everything."""
        self._accept(backend)
        mailbox = Mailbox(backend.lane_depth)
        self._captures = {name: CaptureThread(self._job(name, mailbox)) for name in self._config.sources}
        parts = Parts(
            backend,
            Preprocessor(self.model.card.input),
            self._decoder,
            mailbox,
            self.ledgers,
            self.publisher,
            self._config.frames,
        )
        self._pipeline = Pipeline(parts, self._captures)
        self._pipeline.start()
        self._started_s = time.monotonic()
        for capture in self._captures.values():
            capture.start()

    def _take_over(self, ready: Background[Backend]) -> None:
        if ready.result is None:
            self._do_without(ready.error or FatalError("the engine was not built"))
            return
        before = self.backend_name
        if self._pipeline is None:
            self._serve(ready.result)
        else:
            self._accept(ready.result)
            self._pipeline.replace(ready.result)
        if before:
            log.info("%s takes over from %s", self.backend_name, before)
        self._tell(Reason("engine-ready", f"running on {self.backend_name}"))

    def _do_without(self, failure: EdgeinferError) -> None:
        """Stays on what serves, or loads what serves instead. Raises `failure` where there is neither."""
        instead, self._instead = self._instead, None
        if self._pipeline is None and instead is None:
            raise failure
        serving = self.backend_name or FALLBACK
        log.warning("%s; staying on %s", failure, serving)
        self._tell(Reason("engine-failed", f"{failure.message}; staying on {serving}"))
        if self._pipeline is None and instead is not None:
            open_instead = instead
            self._loading = Background("model", lambda _: Choice(open_instead(), None))
            self._loading.start()

    def _accept(self, backend: Backend) -> None:
        self._decoder.check(backend.output_specs, len(self.model.card.labels))
        self.backend_name = backend.name
        self.publisher.set_backend(backend.name, backend.versions)

    def _tell(self, news: Reason | None) -> None:
        self.news = news
        self.publisher.set_news(news)

    def stop(self, patience: Patience) -> Summary:
        """Ends sources, then inference, then publishing; what is in flight is passed on while patience lasts."""
        if self._upgrade is not None:
            self._upgrade.cancel()
        for capture in self._captures.values():
            capture.stop()
        for capture in self._captures.values():
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
            self.publisher.versions,
            seconds,
            {name: ledger.snapshot() for name, ledger in self.ledgers.items()},
            self.stats.percentiles(),
        )

    def failures(self) -> dict[str, EdgeinferError]:
        """What went wrong although the run came to its end: sources and sinks that failed, by name."""
        found: dict[str, EdgeinferError] = {f"source {name}": error for name, error in self.source_errors().items()}
        for name, trouble in self.publisher.failed_sinks.items():
            if not _is_reader_of_stdout(name, trouble):
                hint = "what came after that was not written there"
                found[name] = TemporaryError(f"{name}: {reason_of(trouble)}", hint)
        for name, count in self.publisher.unwritten.items():
            found[name] = TemporaryError(f"{name}: {count} messages were not written", "its reader is too slow")
        return found

    @property
    def reader_gone(self) -> bool:
        """Whether whoever read our standard output has closed it."""
        return any(_is_reader_of_stdout(name, error) for name, error in self.publisher.failed_sinks.items())

    @property
    def hung(self) -> bool:
        """Whether a thread has not ended that a normal exit of the process would wait for."""
        return any(
            thread is not None and thread.is_alive() for thread in (self._loading, self._upgrade, self._pipeline)
        )

    def source_errors(self) -> dict[str, EdgeinferError]:
        """The sources that failed, so far."""
        return {name: capture.error for name, capture in self._captures.items() if capture.error is not None}

    def _job(self, name: str, mailbox: Mailbox) -> Job:
        source = self._config.sources[name]
        return Job(
            name,
            partial(open_source, source),
            self.ledgers[name],
            mailbox,
            source.max_fps,
            self._config.frames,
            self.watch.governor,
        )

    def _watch(self, sinks: Mapping[str, Sink], root: Path) -> Watch:
        """Binds the HTTP port; where that fails nothing stays open."""
        try:
            return Watch(
                self.publisher,
                self.stats,
                lambda: self.ledgers,
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


def model_info(model: Model) -> ModelInfo:
    """The model as `info` describes it."""
    card = model.card
    return ModelInfo(
        id=model.id,
        name=card.name,
        sha256=model.sha256,
        task=card.task,
        input_size=(card.input.width, card.input.height),
        labels=card.labels,
    )


def open_source(config: SourceConfig) -> Source:
    """Opens a source; may block, so it is called on the source's own thread."""
    source: Source = plugins.load("sources", config.uri.plugin).open(config.uri.text, config.options)
    return source


def open_sinks(configs: Mapping[str, PluginConfig]) -> dict[str, Sink]:
    """Opens every sink, or none: an error closes those opened before it."""
    opened: dict[str, Sink] = {}
    try:
        for key, config in configs.items():
            opened[key] = plugins.load("sinks", config.name).open(config.options)
    except EdgeinferError:
        for sink in opened.values():
            sink.close()
        raise
    return opened


def open_decoder(model: Model, config: ModelConfig) -> Decoder:
    """The card's decoder with the card's thresholds, or those of the config where it has some."""
    card = model.card
    module = plugins.load("decoders", card.decoder.name, "decoder.name")
    thresholds = {
        "score": card.thresholds.score if config.score is None else config.score,
        "iou": card.thresholds.iou if config.iou is None else config.iou,
    }
    known = strict.field_names(module.Options)
    table = {**{key: value for key, value in thresholds.items() if key in known}, **card.decoder.options}
    decoder: Decoder = module.open(plugins.options(module, table, "decoder.options"))
    return decoder
