"""docs/metrics.md: the metrics that a daemon with everything in it has."""

from __future__ import annotations

from edgeinfer.flow.statistics import Statistics
from edgeinfer.messages import MachineVitals
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SinkSnapshot, SourceSnapshot
from edgeinfer.types import Timing
from edgeinfer.web.metrics import Metrics
from reference.tables import table as markdown

EVERYTHING = DaemonSnapshot(
    model="model",
    versions={"tensorrt": "1", "cuda": "1", "onnxruntime": "1"},
    sources={"cam": SourceSnapshot("running", None, 2, 1, 0, {"overload": 1}, 1.0)},
    subscribers=1,
    sinks={"sinks.jsonl": SinkSnapshot()},
    machine=MachineVitals(
        throttled=["cpu"],
        temperatures_c={"cpu": 50.0},
        gpu_load=0.5,
        gpu_hz=1,
        power_mw={"VDD_IN": 1},
        memory_total_bytes=1,
        memory_available_bytes=1,
    ),
)


def table() -> str:
    """Every metric with its type and labels. A counter's name ends in `_total`."""
    times = Statistics()
    times.add(Timing(1.0, 1.0, 1.0, 1.0), 4.0, "cam")
    rows = []
    for metric in Metrics(lambda: EVERYTHING, times).collect():
        suffix = "_total" if metric.type == "counter" else ""
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        rows.append((f"`{metric.name}{suffix}`", metric.type, ", ".join(labels), metric.documentation))
    return markdown(("metric", "type", "labels", "meaning"), rows)
