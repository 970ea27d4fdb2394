"""Sections of the configuration → the parts that they describe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial

from edgeinfer.config import plugins, strict
from edgeinfer.config.card import Model
from edgeinfer.config.settings import ModelConfig, PluginConfig, SourceConfig
from edgeinfer.errors import EdgeinferError
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import Deadlines, Job
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.interfaces import (
    Decoder,
    Isolating,
    Reconnecting,
    Relaying,
    Reopening,
    Scaling,
    Selective,
    Sink,
    SlowStarting,
    Source,
)
from edgeinfer.isolation.relaying import open_relaying
from edgeinfer.isolation.source import Order, open_isolated
from edgeinfer.messages import ModelInfo
from edgeinfer.types import Start

log = logging.getLogger(__name__)

PROCESS_GRACE_S = 60.0
"""More than everything takes after which a process is ended, so that its thread is never given up before."""
ANSWER_S = 2.0
"""After its source counts as lost, a process that has not answered hangs; its thread is not given up yet then."""


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


Size = tuple[int, int]
"""Width and height, in pixels."""
Fit = Callable[[], Size | None]
"""What pictures need not exceed, None where they are wanted whole; asked when a source is opened."""


def wanted_size(model: Model, sinks: Iterable[Sink]) -> Size | None:
    """The network's input size, unless somebody looks at pictures: see `Fit`.

    None for an input that pictures are stretched to: a smaller one keeps its shape, and would lose rows or columns.
    """
    card = model.card.input
    if card.resize == "stretch" or any(not isinstance(sink, Selective) or sink.pictures for sink in sinks):
        return None
    return card.width, card.height


def scales(config: SourceConfig) -> bool:
    """Whether a source is opened with smaller pictures than it sees where those do; never in a process of ours."""
    module = plugins.load("sources", config.uri.plugin)
    return (
        not config.isolation.isolated and isinstance(module, Scaling) and module.scales(config.uri.text, config.options)
    )


def capture_job(name: str, config: SourceConfig, ledger: Ledger, mailbox: Mailbox, fit: Fit = lambda: None) -> Job:
    """What a source's capture thread works on. The configuration counts for more than what its plugin says."""
    ladder, module = config.ladder, plugins.load("sources", config.uri.plugin)
    return Job(
        name,
        partial(open_source, config, name, fit),
        ledger,
        mailbox,
        max_fps=config.max_fps,
        reconnect=_reconnects(module, config) if ladder.reconnect is None else ladder.reconnect,
        wait=ladder.wait,
        max_age_ns=None if ladder.max_age_ms is None else int(ladder.max_age_ms * 1e6),
        frozen_s=ladder.frozen_s,
        limits=deadlines(config),
        opening_why="" if (start := starting(config)) is None else start.why,
    )


def _reconnects(module: object, config: SourceConfig) -> bool | None:
    """See `Job.reconnect`; as its plugin says."""
    if isinstance(module, Reopening):
        return module.reconnects(config.uri.text, config.options)
    return module.RECONNECT if isinstance(module, Reconnecting) else None


def open_source(config: SourceConfig, name: str, fit: Fit = lambda: None) -> Source:
    """Opens a source, in the process that it needs, if any; may block, so it is called on the source's thread."""
    order, what, limits = Order(config.uri.plugin, config.uri.text, config.options), f"source {name}", deadlines(config)

    def patience_s(fps: float) -> float:
        return limits.at_rate(fps).timeout + ANSWER_S

    module = plugins.load("sources", config.uri.plugin)
    if config.isolation.may_relay and isinstance(module, Relaying) and module.relays(config.uri.text, config.options):
        return open_relaying(module, order, what, patience_s)
    if config.isolation.isolated:
        memory_mb = config.isolation.memory_mb
        return open_isolated(order, what, patience_s, None if memory_mb is None else memory_mb << 20)
    size = fit()
    if size is not None and scales(config):
        fitted: Source = module.open_fitted(config.uri.text, config.options, size)
        return fitted
    source: Source = module.open(config.uri.text, config.options)
    return source


def deadlines(config: SourceConfig) -> Deadlines:
    """How patient a source's capture thread is. A process of its own is ended in time, so its thread never hangs."""
    usual, start = Deadlines(config.ladder.stall_s, config.ladder.timeout_s), starting(config)
    if start is not None:
        usual = replace(usual, opening=start.seconds)
    return replace(usual, grace=PROCESS_GRACE_S) if _has_a_process(config) else usual


def starting(config: SourceConfig) -> Start | None:
    """How long opening a source may take where that is longer than usual."""
    module = plugins.load("sources", config.uri.plugin)
    return module.starting(config.uri.text, config.options) if isinstance(module, SlowStarting) else None


def _has_a_process(config: SourceConfig) -> bool:
    """Whether a source lives in a process: one that we make for it, or its own."""
    module = plugins.load("sources", config.uri.plugin)
    own = isinstance(module, Isolating) and module.isolate(config.uri.text, config.options) is None
    return own or config.isolation.isolated


def open_sinks(configs: Mapping[str, PluginConfig]) -> dict[str, Sink]:
    """Opens every sink, or none: an error closes those opened before it."""
    opened: dict[str, Sink] = {}
    try:
        for key, config in configs.items():
            opened[key] = plugins.load("sinks", config.name).open(config.options)
    except EdgeinferError:
        close_sinks(opened)
        raise
    return opened


def close_sinks(sinks: Mapping[str, Sink]) -> None:
    """Closes sinks that nothing was given to; one that can't be closed keeps no other open."""
    for name, sink in sinks.items():
        try:
            sink.close()
        except Exception:
            log.warning("%s: can't be closed", name, exc_info=True)


def open_decoder(model: Model, config: ModelConfig) -> Decoder:
    """The card's decoder. The configuration's thresholds go before the card's options, and those before its thresholds.

    A threshold that the decoder does not know is left out.
    """
    card = model.card
    module = plugins.load("decoders", card.decoder.name, "decoder.name")
    ours = {key: value for key, value in (("score", config.score), ("iou", config.iou)) if value is not None}
    thresholds = {"score": card.thresholds.score, "iou": card.thresholds.iou}
    known = strict.field_names(module.Options)
    table = {**_known(thresholds, known), **card.decoder.options, **_known(ours, known)}
    decoder: Decoder = module.open(plugins.options(module, table, "decoder.options"))
    return decoder


def _known(thresholds: Mapping[str, float], known: Collection[str]) -> dict[str, float]:
    return {key: value for key, value in thresholds.items() if key in known}
