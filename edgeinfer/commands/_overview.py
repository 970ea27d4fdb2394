"""How `status` and `top` show a daemon."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import UNSET
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edgeinfer.commands._drawing import BAD, GOOD, WARNING, cell
from edgeinfer.commands._remote import RemoteDaemon
from edgeinfer.commands._report import plain_table
from edgeinfer.errors import UnavailableError
from edgeinfer.messages import InfoMessage, MachineVitals, StatusMessage, Vitals

COLOURS = {"running": GOOD, "ended": "dim", "failed": BAD}

ANY = 1_000_000
"""Columns: as many as it takes."""


def no_daemon(endpoint: str, refused: str) -> UnavailableError:
    """The error where nobody answers."""
    if refused:
        return UnavailableError(f"{endpoint}: {refused}")
    return UnavailableError(
        f"no daemon answers at {endpoint}", "is one running? its first lines say where it publishes"
    )


def header(overview: RemoteDaemon) -> Text:
    """Two lines: what runs, and in which versions; a third one where something is to be told."""
    info, daemon = overview.info, overview.daemon
    if info is None:
        return Text("waiting for the daemon")
    lines = [f"edgeinfer {info.version} on {info.host}, PID {info.pid}, up {_duration(info)}"]
    versions = ", ".join(f"{name} {version}" for name, version in info.versions.items() if name != "edgeinfer")
    model = f"{info.model.id} on {info.backend or 'nothing yet: the model is being loaded'}"
    lines.append(f"{model}{f' ({versions})' if versions else ''}")
    if daemon is not None and daemon.reason is not None:
        lines.append(f"{daemon.reason.code}: {daemon.reason.text}")
    return Text("\n").join(map(cell, lines))


@dataclass(frozen=True, slots=True)
class SourceRow:
    """What there is to say of a source, as text."""

    name: Text
    state: Text
    fps: str
    captured: str
    inferred: str
    lost: int
    dropped: str
    decoder: str
    reason: str

    @staticmethod
    def of(name: str, status: StatusMessage) -> SourceRow:
        """From its newest status."""
        return SourceRow(
            cell(name),
            cell(status.state, COLOURS.get(status.state, WARNING)),
            f"{status.fps:.1f}",
            str(status.captured),
            str(status.inferred),
            status.dropped,
            ", ".join(f"{count} {why}" for why, count in status.dropped_by_reason.items() if count),
            "" if status.decoder is UNSET else f"{status.decoder.name}: {status.decoder.why}",
            "" if status.reason is None else f"{status.reason.code}: {status.reason.text}",
        )


class SourceTable:
    """A line per source, which says everything where there is room for that.

    Where there is not, what is said in words follows below, so that no number gives way to it.
    """

    def __init__(self, statuses: Mapping[str, StatusMessage]) -> None:
        self._rows = [SourceRow.of(name, status) for name, status in statuses.items()]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._whole()
        if Measurement.get(console, options.update(width=ANY), whole).maximum <= options.max_width:
            yield whole
            return
        yield self._numbers()
        for row in self._rows:
            if said := " · ".join(filter(None, (row.reason, row.dropped, row.decoder))):
                yield Text.assemble((row.name.plain, "bold"), ": ", cell(said))

    def _whole(self) -> Table:
        left = ("source", "state", "dropped", "decoder", "reason")
        table = plain_table("source", "state", "fps", "captured", "inferred", "dropped", "decoder", "reason", left=left)
        for row in self._rows:
            numbers = row.name, row.state, row.fps, row.captured, row.inferred
            table.add_row(*numbers, cell(row.dropped or "0"), cell(row.decoder), cell(row.reason))
        return table

    def _numbers(self) -> Table:
        table = plain_table("source", "state", "fps", "captured", "inferred", "dropped", left=("source", "state"))
        table.columns[0].no_wrap = False  # a name that is too long is folded: it can still be read
        table.columns[0].overflow = "fold"
        for row in self._rows:
            table.add_row(row.name, row.state, row.fps, row.captured, row.inferred, str(row.lost))
        return table


def stages(vitals: Vitals) -> RenderableType:
    """The stages' latencies."""
    table = plain_table("milliseconds", "p50", "p95", "p99", left=("milliseconds",))
    for stage, values in vitals.latency_ms.items():
        name = "capture → publish" if stage == "total" else stage
        table.add_row(cell(name), *(f"{values[q]:.2f}" if q in values else "" for q in ("p50", "p95", "p99")))
    return table


def machine(found: MachineVitals) -> Text:
    """The sensors, in a line."""
    parts: list[str] = []
    if found.temperatures_c is not UNSET:
        parts += [f"{zone} {celsius:.0f} °C" for zone, celsius in found.temperatures_c.items()]
    if found.gpu_load is not UNSET:
        parts.append(f"GPU {found.gpu_load:.0%}")
    if found.gpu_hz is not UNSET:
        parts.append(f"{found.gpu_hz / 1e6:.0f} MHz")
    if found.memory_available_bytes is not UNSET:
        parts.append(f"{found.memory_available_bytes / 1e9:.1f} GB of memory free")
    if found.power_mw is not UNSET:
        parts += [f"{rail} {milliwatts / 1000:.1f} W" for rail, milliwatts in found.power_mw.items()]
    if found.power_mode is not UNSET:
        parts.append(f"power mode {found.power_mode}")
    if found.throttled:
        parts.append(f"throttled: {', '.join(found.throttled)}")
    return cell(" · ".join(parts))


def page(overview: RemoteDaemon) -> RenderableType:
    """Everything, for `top`."""
    parts: list[RenderableType] = [header(overview), Text(), SourceTable(overview.sources)]
    vitals = overview.daemon.vitals if overview.daemon is not None else UNSET
    if vitals is not UNSET:
        if vitals.latency_ms:
            parts += [Text(), stages(vitals)]
        if vitals.machine is not UNSET:
            parts += [Text(), machine(vitals.machine)]
    return Group(*parts)


def _duration(info: InfoMessage) -> str:
    seconds = max(0, time.time_ns() - info.t_start_ns) // 1_000_000_000
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
