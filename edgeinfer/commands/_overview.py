"""How `status` and `top` show a daemon."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import UNSET
from rich.console import Group, RenderableType
from rich.text import Text

from edgeinfer.commands._drawing import cell
from edgeinfer.commands._remote import RemoteDaemon
from edgeinfer.commands._report import plain_table
from edgeinfer.errors import UnavailableError
from edgeinfer.messages import InfoMessage, MachineVitals, StatusMessage, Vitals

COLOURS = {"running": "green", "ended": "dim", "failed": "red"}


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


def sources(statuses: Mapping[str, StatusMessage]) -> RenderableType:
    """A line per source."""
    left = ("source", "state", "dropped", "decoder", "reason")
    table = plain_table("source", "state", "fps", "captured", "inferred", "dropped", "decoder", "reason", left=left)
    for column in table.columns[-2:]:
        column.no_wrap = False  # those that give way where the terminal is narrow
    for name, status in statuses.items():
        dropped = ", ".join(f"{count} {why}" for why, count in status.dropped_by_reason.items() if count) or "0"
        reason = "" if status.reason is None else f"{status.reason.code}: {status.reason.text}"
        decoder = "" if status.decoder is UNSET else f"{status.decoder.name}: {status.decoder.why}"
        table.add_row(
            cell(name),
            cell(status.state, COLOURS.get(status.state, "yellow")),
            f"{status.fps:.1f}",
            str(status.captured),
            str(status.inferred),
            cell(dropped),
            cell(decoder),
            cell(reason),
        )
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
    parts: list[RenderableType] = [header(overview), Text(), sources(overview.sources)]
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
