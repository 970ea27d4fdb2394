"""`edgeinfer engines`: what is in the engine cache, whether it is sound, and why it would or would not be used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from edgeinfer.commands._engine_options import BUILD, COMMON, RUNTIME, keys, open_cache, options, task_of, this_machine
from edgeinfer.commands._group import Group
from edgeinfer.commands._plots import draw_errors
from edgeinfer.commands._terminal import echo, echo_json
from edgeinfer.engine.build.advice import advise
from edgeinfer.engine.options import parse_size
from edgeinfer.engine.store import foreign
from edgeinfer.engine.store.cache import PLAN, BrokenEngine, CachedEngine
from edgeinfer.engine.store.disk import folder_bytes
from edgeinfer.engine.store.explain import word
from edgeinfer.errors import EdgeinferError, InputError


@click.group("engines", cls=Group)
def command() -> None:
    """Look at the engine cache and put it in order."""


@command.command("ls")
@options(COMMON)
def ls(cache_dir: Path | None, as_json: bool, verbose: bool) -> None:
    """List the engines, last used first."""
    cache = open_cache(cache_dir, verbose)
    rows = [_row(item) for item in cache.entries()]
    if as_json:
        echo_json(msgspec.json.encode(rows))
    elif not rows:
        echo(f"no engines in {cache.root}")
    else:
        _print_table(rows)


def _row(item: CachedEngine | BrokenEngine) -> dict[str, Any]:
    if isinstance(item, BrokenEngine):
        return {"key": item.key, "bytes": folder_bytes(item.folder), "state": "broken", "problem": item.error.message}
    record = item.manifest
    return {
        "key": item.key,
        "model": record.model_name,
        "precision": record.build.precision,
        "dla_core": record.fields.dla_core,
        "dla": "" if record.build.dla is None else str(record.build.dla),
        "tensorrt": ".".join(map(str, record.fields.tensorrt)),
        "gpu": record.fields.gpu,
        "bytes": record.plan_bytes,
        "built_at": record.build.finished_at,
        "build_seconds": record.build.seconds,
        "check": record.verification.state,
        "used_at": _time(item.used_at),
        "strikes": item.strikes,
        "state": "ok",
    }


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _print_table(rows: list[dict[str, Any]]) -> None:
    lines = [("KEY", "MODEL", "PRECISION", "TENSORRT", "GPU", "MIB", "CHECK", "LAST USED (UTC)"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row["state"] == "broken":
            echo(f"{row['key'][:12]}: {row['problem']}", err=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['bytes'] / 2**20:.1f}"
    if row["state"] == "broken":
        return (row["key"][:12], "-", "-", "-", "-", size, "broken", "-")
    used = row["used_at"][:19].replace("T", " ")
    return (
        row["key"][:12],
        row["model"],
        row["precision"] if row["dla_core"] is None else f"{row['precision']}@dla{row['dla_core']}",
        row["tensorrt"],
        row["gpu"] or "-",
        size,
        row["check"],
        used,
    )


@command.command("show")
@options(COMMON)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw how far its outputs are from ONNX Runtime's, and what is let pass.",
)
@click.argument("key", shell_complete=keys)
def show(cache_dir: Path | None, as_json: bool, verbose: bool, plot: Path | None, key: str) -> None:
    """Show everything that is known of the engine whose key begins with KEY."""
    item = open_cache(cache_dir, verbose).find(key)
    if isinstance(item, BrokenEngine):
        raise item.error
    if plot is not None:
        draw_errors(item.manifest, plot)
    if as_json:
        echo_json(msgspec.json.encode(item.manifest))
        return
    echo(f"plan: {item.folder / PLAN}")
    _print_tree(msgspec.to_builtins(item.manifest), "")


def _print_tree(values: dict[str, Any], indent: str) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            echo(f"{indent}{name}:")
            _print_tree(value, indent + "  ")
        elif name == "log":
            for line in value:
                echo(f"{indent}log: {line}")
        else:
            echo(f"{indent}{name}: {value if isinstance(value, str) else word(value, name)}")


@command.command("verify")
@options(COMMON)
@RUNTIME
@click.argument("engines", nargs=-1, metavar="[KEY|FILE]...", shell_complete=keys)
def verify(cache_dir: Path | None, as_json: bool, verbose: bool, runtime: str | None, engines: tuple[str, ...]) -> None:
    """Check owner, mode, checksum and header of engines: those named, or all. A FILE is held against this machine."""
    files = [Path(name) for name in engines if Path(name).is_file()]
    begun = [name for name in engines if not Path(name).is_file()]
    results = [_check_file(path, runtime) for path in files]
    if begun or not files:
        cache = open_cache(cache_dir, verbose)
        results += [_check(item) for item in ([cache.find(key) for key in begun] or cache.entries())]
    if as_json:
        echo_json(msgspec.json.encode(results))
    else:
        for result in results:
            name = result["engine"]
            echo(f"{name if '/' in name else name[:12]} {result['problem'] or 'ok'}")
    bad = sum(bool(result["problem"]) for result in results)
    if bad:
        raise InputError(f"{bad} of {len(results)} engines can't be used", "the next start builds damaged ones again")


def _check(item: CachedEngine | BrokenEngine) -> dict[str, str]:
    try:
        if isinstance(item, BrokenEngine):
            raise item.error
        item.read(mark=False)
    except EdgeinferError as error:
        return {"engine": item.key, "problem": str(error)}
    return {"engine": item.key, "problem": ""}


def _check_file(path: Path, runtime: str | None) -> dict[str, str]:
    try:
        plan = foreign.accept(path, this_machine({"runtime": runtime}))
    except InputError as error:
        return {"engine": str(path), "problem": str(error)}
    for warning in plan.warnings:
        echo(f"warning: {warning}", err=True)
    return {"engine": str(path), "problem": ""}


@command.command("explain")
@options(BUILD, COMMON)
def explain(cache_dir: Path | None, as_json: bool, verbose: bool, **arguments: Any) -> None:
    """Say whether the next start would reuse an engine of MODEL, or build one, and why."""
    cache = open_cache(cache_dir, verbose)
    task = task_of(arguments, cache)
    advice = advise(task, cache)
    if as_json:
        shown = {"action": advice.action, "key": task.key, "sentence": advice.sentence, "reasons": advice.reasons}
        echo_json(msgspec.json.encode(shown))
    else:
        echo(advice.sentence)


@command.command("prune")
@options(COMMON)
@click.option("--max-size", required=True, metavar="SIZE", help="What the cache may keep, like 4G; 0 for nothing.")
def prune(cache_dir: Path | None, as_json: bool, verbose: bool, max_size: str) -> None:
    """Remove quarantined engines, then the least recently used, until the rest fits."""
    cache = open_cache(cache_dir, verbose, writing=True)
    removed = cache.prune(parse_size(max_size))
    left = sum(folder_bytes(folder) for folder in cache.engines.iterdir())
    if as_json:
        echo_json(msgspec.json.encode({"removed": removed, "bytes_left": left}))
    else:
        count = "1 engine" if len(removed) == 1 else f"{len(removed)} engines"
        echo(f"removed {count}, {left / 2**20:.1f} MiB left in {cache.root}")
        for key in removed:
            echo(key[:12])
