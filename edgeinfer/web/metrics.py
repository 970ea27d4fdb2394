"""Prometheus metrics, made from the books at the moment they are asked for: a frame pays nothing for them.

What is not measured is not there, instead of being 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import UNSET
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector

from edgeinfer import __version__
from edgeinfer.flow.statistics import BUCKETS_MS, Histogram, Statistics
from edgeinfer.messages import MachineVitals
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.web.request import Answer


class Metrics:
    """Answers /metrics. `picture` gives the daemon as it is, once a scrape and from any thread; `stats` the times."""

    def __init__(self, picture: Callable[[], DaemonSnapshot], stats: Statistics) -> None:
        self._picture, self._stats = picture, stats
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answer(self, accept: str) -> Answer:
        """The page, as text or OpenMetrics, whichever the scraper accepts."""
        encode, content_type = choose_encoder(accept)
        return Answer(200, encode(self._registry), content_type)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's custom collectors."""
        numbers, latency = self._picture(), self._stats.sources()
        sinks = numbers.sinks.items()
        yield _build({"edgeinfer": __version__, **numbers.versions})
        yield from _frames(numbers, latency)
        yield _histogram("edgeinfer_stage_duration_seconds", "time per frame", "stage", _stages(self._stats.stages()))
        yield _histogram("edgeinfer_pipeline_latency_seconds", "capture to publish", "source", latency)
        yield GaugeMetricFamily("edgeinfer_live_rate_ratio", "share of live sources' frames in use", numbers.rate)
        if numbers.subscribers is not None:
            yield GaugeMetricFamily("edgeinfer_zmq_subscribers", "connected and subscribed", numbers.subscribers)
        yield _gauge(
            "sink_up", "1 while it takes what it is given", {n: float(not s.trouble) for n, s in sinks}, "sink"
        )
        lost = {(name,): sink.lost for name, sink in sinks}
        yield _counter("sink_messages_lost", "not taken by a sink", lost, ("sink",))
        if numbers.machine is not None:
            yield from _machine(numbers.machine)


def _build(versions: Mapping[str, str]) -> Metric:
    names = {"version": "edgeinfer", "tensorrt": "tensorrt", "cuda": "cuda", "onnxruntime": "onnxruntime"}
    found = {label: versions[key] for label, key in names.items() if key in versions}
    family = GaugeMetricFamily("edgeinfer_build_info", "versions, as labels", labels=list(found))
    family.add_metric(list(found.values()), 1)
    return family


def _frames(numbers: DaemonSnapshot, latency: Mapping[str, Histogram]) -> Iterator[Metric]:
    sources = numbers.sources.items()
    yield _counter("frames_captured", "read from the source", {(n,): b.captured for n, b in sources})
    family = CounterMetricFamily("edgeinfer_frames_inferred", "through the network", labels=("source", "model"))
    for name, books in sources:
        family.add_metric((name, numbers.model), books.inferred)
    yield family
    dropped = {(n, reason): count for n, b in sources for reason, count in b.dropped.items()}
    yield _counter("frames_dropped", "given up, by reason", dropped, ("source", "reason"))
    published = {(name,): histogram.counts[-1] for name, histogram in latency.items()}
    yield _counter("messages_published", "detections messages", published)
    yield _gauge("frames_in_flight", "captured and not done yet", {n: b.in_flight for n, b in sources})
    yield _gauge("source_up", "1 while the source gives frames", {n: float(b.state == "running") for n, b in sources})
    yield _counter("source_stalls", "how often the source went quiet", {(n,): b.stalls for n, b in sources})
    yield _counter("source_reconnects", "how often it was opened again", {(n,): b.reconnects for n, b in sources})
    yield _gauge("source_fps", "results per second", {n: b.fps for n, b in sources})


def _machine(machine: MachineVitals) -> Iterator[Metric]:
    if machine.temperatures_c is not UNSET:
        yield _gauge("temperature_celsius", "of a thermal zone", machine.temperatures_c, "zone")
    if machine.power_mw is not UNSET:
        watts = {rail: milliwatts / 1000 for rail, milliwatts in machine.power_mw.items()}
        yield _gauge("power_watts", "of a power rail", watts, "rail")
    yield _gauge("throttled", "1 for what slows the machine down", dict.fromkeys(machine.throttled, 1.0), "kind")
    for name, text, value in (
        ("gpu_utilization_ratio", "load of the GPU", machine.gpu_load),
        ("gpu_clock_hertz", "clock of the GPU", machine.gpu_hz),
        ("memory_total_bytes", "of the machine", machine.memory_total_bytes),
        ("memory_available_bytes", "of the machine", machine.memory_available_bytes),
    ):
        if value is not UNSET:
            yield GaugeMetricFamily(f"edgeinfer_{name}", text, value)


def _stages(stages: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """`total` is the latency, which has a metric of its own."""
    return {stage: histogram for stage, histogram in stages.items() if stage != "total"}


def _counter(name: str, text: str, values: Mapping[Any, float], labels: Iterable[str] = ("source",)) -> Metric:
    family = CounterMetricFamily(f"edgeinfer_{name}", text, labels=list(labels))
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, values: Mapping[str, float], label: str = "source") -> Metric:
    family = GaugeMetricFamily(f"edgeinfer_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label])
    bounds = [*(str(bound / 1000) for bound in BUCKETS_MS), "+Inf"]
    for key, histogram in values.items():
        buckets: list[tuple[str, float]] = list(zip(bounds, map(float, histogram.counts), strict=True))
        family.add_metric([key], buckets, histogram.sum_ms / 1000)
    return family
