"""What a benchmark says, and the arithmetic from single runs to its table. Nothing here measures anything."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, to_builtins


class Spread(Struct, frozen=True):
    """Median, smallest and largest of the rounds."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return Spread(*(round(value, 4) for value in (statistics.median(values), min(values), max(values))))


class RawRun(Struct, frozen=True):
    """What the runtime does alone, by "STREAMSxBATCH"; `best` of them is what the pipeline is held against.

    engines: batch → what ran it, where there are several.
    """

    fps: dict[str, float]
    engines: dict[str, str] = {}

    @property
    def best(self) -> float:
        """The highest rate."""
        return max(self.fps.values())


class PipelineRun(Struct, frozen=True):
    """One run of the whole pipeline. `cpu_ms` is our CPU time per frame; `stages_ms` maps a stage to p50, p95, p99.

    `gpu_mb` is how much device memory the run took, None without a GPU; `detail` how the backend ran. `source_mb` and
    `source_threads` are what each source added to the daemon's memory (PSS, children included) and threads, None where
    the run was too short to look. `decoder` is what decodes the sources, empty where they don't say.
    """

    model: str
    backend: str
    versions: dict[str, str]
    fps: float
    cpu_ms: float
    published: int
    dropped: int
    stages_ms: dict[str, dict[str, float]]
    gpu_mb: float | None
    detail: str
    source_mb: float | None = None
    source_threads: float | None = None
    decoder: str = ""


class Testbed(Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    python: str
    versions: dict[str, str]
    backend: str
    model: str


class Feed(Struct, frozen=True):
    """A way of feeding the pipeline: what is shown, and from how many sources. `live` ones set the pace themselves."""

    source: str
    sources: int
    live: bool


class Row(Struct, frozen=True):
    """One way of feeding the pipeline. `ratio` is its fps over the raw fps of the same round."""

    source: str
    sources: int
    fps: Spread
    ratio: Spread | None
    cpu_ms: Spread
    dropped: int
    published: int
    stages_ms: dict[str, dict[str, Spread]]
    gpu_mb: Spread | None
    source_mb: Spread | None = None
    source_threads: Spread | None = None
    decoder: str = ""


class Report(Struct, frozen=True):
    """Everything that `edgeinfer bench` measured. `raw` is by "STREAMSxBATCH", `raw_fps` the best of a round.

    engines: batch → what ran the raw network, see `RawRun`.
    """

    machine: Testbed
    detail: str
    rounds: int
    frames: int
    raw_fps: Spread
    raw: dict[str, Spread]
    pipelines: dict[str, Row]
    engines: dict[str, str] = {}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        data: dict[str, Any] = to_builtins(self)
        return data


def table_row(feed: Feed, runs: Sequence[PipelineRun], raw: Sequence[RawRun]) -> Row:
    """The rounds of one way of feeding, beside the raw runs of the same rounds, in the same order.

    A camera's rate is its own: no ratio is made of it.
    """
    stages = runs[0].stages_ms
    return Row(
        source=feed.source,
        sources=feed.sources,
        fps=Spread.of([run.fps for run in runs]),
        ratio=None if feed.live else Spread.of([run.fps / alone.best for run, alone in zip(runs, raw, strict=True)]),
        cpu_ms=Spread.of([run.cpu_ms for run in runs]),
        dropped=sum(run.dropped for run in runs),
        published=sum(run.published for run in runs),
        stages_ms={
            stage: {q: Spread.of([run.stages_ms[stage][q] for run in runs]) for q in stages[stage]} for stage in stages
        },
        gpu_mb=_known([run.gpu_mb for run in runs]),
        source_mb=_known([run.source_mb for run in runs]),
        source_threads=_known([run.source_threads for run in runs]),
        decoder=runs[0].decoder,
    )


def _known(values: Sequence[float | None]) -> Spread | None:
    """Of the rounds that say it."""
    known = [value for value in values if value is not None]
    return Spread.of(known) if known else None


def by_shape(raw: Sequence[RawRun]) -> dict[str, Spread]:
    """The raw rounds, shape by shape."""
    return {shape: Spread.of([run.fps[shape] for run in raw]) for shape in raw[0].fps}
