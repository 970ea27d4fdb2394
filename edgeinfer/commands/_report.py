"""What a run shows a person: a live line on a terminal, a line where a scene changes, the summary at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.status import Status
from rich.table import Table

from edgeinfer.commands._drawing import cell, console
from edgeinfer.commands._terminal import echo
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.messages import DetectionsMessage, Message
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.types import Result

LOG_PERIOD_S = 10.0
UPDATE_PERIOD_S = 0.5
SCENE_PERIOD_S = 1.0


class LiveLine:
    """The live line: rewritten in place on a terminal, a log line every ten seconds elsewhere."""

    def __init__(self, daemon: Daemon, quiet: bool = False) -> None:
        """`quiet`: only the first line; somebody else tells the rest."""
        self._daemon, self._quiet = daemon, quiet
        self._console = console(err=True)
        self._status: Status | None = None
        self._told = ""
        self._next_update_s = 0.0
        self._next_line_s = time.monotonic() + LOG_PERIOD_S

    def __enter__(self) -> LiveLine:
        where = f", publishing on {self._daemon.endpoint}" if self._daemon.endpoint else ""
        echo(f"edgeinfer: model {self._daemon.model.id}{where}", err=True)
        if self._console.is_terminal:
            self._status = self._console.status(cell("loading the model"))
            self._status.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    def update(self) -> None:
        """Shows the current numbers, and news of the engine when there are any."""
        if self._quiet:
            return
        news = self._daemon.bulletin.news
        if news is not None and news.code.startswith("engine-") and news.code != self._told:
            self._told = news.code
            echo(f"edgeinfer: {news.code}: {news.text}", err=True)
        if self._status:
            if time.monotonic() >= self._next_update_s:
                self._next_update_s = time.monotonic() + UPDATE_PERIOD_S
                self._status.update(cell(self._line()))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s += LOG_PERIOD_S
            echo(f"edgeinfer: {self._line()}", err=True)

    def _line(self) -> str:
        seen = self._daemon.snapshot()
        total, latency, news = seen.total, seen.latency_ms.get("total", {}), seen.news
        states = Counter(book.state for book in seen.sources.values())
        parts = [
            seen.backend,
            f"{total.inferred} frames",
            f"{total.fps:.1f} fps",
            f"{sum(total.dropped.values())} dropped",
            f"latency p50 {latency['p50']:.0f} ms p99 {latency['p99']:.0f} ms" if latency else "no frame yet",
            ", ".join(f"{count} {state}" for state, count in states.items()),
            news.text if news is not None and news.code == "engine-building" else "",
        ]
        return " · ".join(part for part in parts if part)


class SceneLines:
    """A sink that prints a source's scene on standard output when what is in it changes, at most once a second."""

    blocks = True
    pictures = False

    def __init__(self) -> None:
        self._shown: dict[str, tuple[float, tuple[str, ...]]] = {}

    def write(self, message: Message, result: Result | None) -> None:
        """See `Sink.write`."""
        if not isinstance(message, DetectionsMessage):
            return
        labels = tuple(sorted(found.label for found in message.detections))
        at, before = self._shown.get(message.source, (0.0, None))
        now = time.monotonic()
        if labels != before and (before is None or now - at >= SCENE_PERIOD_S):
            self._shown[message.source] = (now, labels)
            echo(scene_line(message))

    def service(self) -> None:
        """See `Sink.service`."""

    def close(self) -> None:
        """See `Sink.close`."""


def scene_line(message: DetectionsMessage) -> str:
    """A detections message as one line for a person."""
    found = ", ".join(
        f"{item.label} {item.score:.2f} [{' '.join(f'{v:.0f}' for v in item.box)}]" for item in message.detections
    )
    return f"{message.source} #{message.frame_id}  {found or 'nothing'}"


def print_summary(summary: DaemonSnapshot) -> None:
    """The end of a run, on stderr."""
    out = console(err=True)
    seconds = summary.serving_s or 0.0
    out.print(cell(f"{summary.model} on {summary.backend}, {seconds:.1f} s"), soft_wrap=True)
    for line in (summary.detail, summary.unused.text if summary.unused else ""):
        if line:
            out.print(cell(line), soft_wrap=True)
    sources = plain_table(
        "source", "state", "captured", "inferred", "fps", "dropped", left=("source", "state", "dropped")
    )
    for name, books in summary.sources.items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in books.dropped.items() if count) or "0"
        fps = books.inferred / seconds if seconds else 0.0
        sources.add_row(
            cell(name), cell(books.state), str(books.captured), str(books.inferred), f"{fps:.1f}", cell(dropped)
        )
    out.print(sources, soft_wrap=True)
    if summary.latency_ms:
        stages = plain_table("milliseconds", "p50", "p95", "p99", left=("milliseconds",))
        for stage, values in summary.latency_ms.items():
            name = "capture → publish" if stage == "total" else stage
            stages.add_row(cell(name), *(f"{values[q]:.2f}" for q in ("p50", "p95", "p99")))
        out.print(stages, soft_wrap=True)
    sys.stderr.flush()


def plain_table(*headings: str, left: Sequence[str]) -> Table:
    """A table without lines; the columns in `left` are set left, the others, numbers, right. Nothing wraps."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    return table
