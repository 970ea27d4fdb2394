"""Command-line options that several commands share."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeinfer.commands import _completing
from edgeinfer.config.overrides import parse_override
from edgeinfer.config.reader import ConfigReader
from edgeinfer.config.settings import Config, source_names
from edgeinfer.config.uri import MAX_DIGITS, default_name, parse_uri, split_name
from edgeinfer.guard.printable import PrintableFormatter
from edgeinfer.systemd import journal

LINE = "edgeinfer: %(levelname)s: %(message)s"

F = TypeVar("F", bound=Callable[..., Any])

verbose = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    help="Tracebacks and debug lines.",
    callback=lambda _ctx, _param, value: set_up_logging(value),
)
_SERVER_KEY = click.option("--server-key", metavar="FILE|KEY", help="The daemon's public key, where it wants keys.")
_KEY = click.option("--key", metavar="FILE", help="Our own .key file (edgeinfer keys new).")
json_output = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")


def curve_options(function: F) -> F:
    """`--server-key` and `--key`, for a daemon that lets in those it knows."""
    return _SERVER_KEY(_KEY(function))


def set_up_logging(debug: bool) -> None:
    """Log lines go to stderr, one line each; to the journal, with fields, where stderr is the journal.

    A crash inside a library, or systemd's SIGABRT, leaves the stacks of all threads on stderr.
    """
    with contextlib.suppress(AttributeError, ValueError, OSError):  # stderr may be no file
        faulthandler.enable()
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        stream=sys.stderr,
        force=True,
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter(LINE))
    in_journal = journal.handler()
    if in_journal is not None:
        logging.getLogger().handlers[:] = [in_journal]
    # What TensorRT says during a build is kept with the engine, and what fails there is an error of ours.
    logging.getLogger("edgeinfer.engine.build.builder").setLevel(logging.DEBUG if debug else logging.CRITICAL)
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    logging.addLevelName(logging.INFO, "info")


def run_options(function: F) -> F:
    """The options that say what to run: each is short for a key of the configuration."""
    for decorate in reversed(
        (
            click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file with settings."),
            click.option(
                "--camera",
                "cameras",
                metavar="N",
                type=click.IntRange(min=0),
                multiple=True,
                help="V4L2 camera N; repeatable.",
            ),
            click.option(
                "--source",
                "sources",
                multiple=True,
                metavar="[NAME=]URI",
                help="Camera, video, images, demo:; repeatable.",
                shell_complete=_completing.sources,
            ),
            click.option(
                "--model",
                metavar="NAME|FILE",
                help="Name of a model, or an ONNX file with its card beside it.",
                shell_complete=_completing.models,
            ),
            click.option(
                "--backend",
                metavar="NAME",
                help="What runs the model; auto by default.",
                shell_complete=_completing.backends,
            ),
            click.option("--bind", metavar="ENDPOINT", help="Where to publish, tcp:// or ipc://."),
            click.option(
                "--frames", metavar="N", type=click.IntRange(min=1), help="End each source after so many results."
            ),
            click.option(
                "--jsonl",
                metavar="FILE",
                help="Write messages as JSON lines; - is standard output.",
                shell_complete=_completing.files,
            ),
            click.option("--save", metavar="FILE.mp4", help="Write annotated video.", shell_complete=_completing.files),
            click.option("--web", is_flag=True, default=None, help="Serve the live page, at http://127.0.0.1:9108/."),
            click.option(
                "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Override any key; repeatable."
            ),
        )
    ):
        function = decorate(function)
    return function


def build_config(
    config_file: Path | None,
    cameras: Sequence[int],
    sources: Sequence[str],
    settings: Sequence[str],
    **short: Any,
) -> Config:
    """The configuration that the options describe. Raises EdgeinferError."""
    return config_reader(config_file, cameras, sources, settings, **short)()


def config_reader(
    config_file: Path | None,
    cameras: Sequence[int],
    sources: Sequence[str],
    settings: Sequence[str],
    **short: Any,
) -> ConfigReader:
    """Reads the configuration that the options describe, again and again: they stay in force over a changed file.

    Raises EdgeinferError, as does what it returns.
    """
    keys = {
        "model": "model",
        "backend": "backend.name",
        "bind": "publish.bind",
        "frames": "frames",
        "jsonl": "sinks.jsonl.path",
        "save": "sinks.video.path",
        "web": "http.web",
    }
    overrides = [(keys[name], value) for name, value in short.items() if value is not None]
    named = source_overrides([str(n) for n in cameras], sources, source_names(config_file))
    return ConfigReader(config_file, [*overrides, *named, *map(parse_override, settings)])


def source_overrides(
    cameras: Sequence[str], sources: Sequence[str], in_file: set[str] | frozenset[str] = frozenset()
) -> list[tuple[str, Any]]:
    """`--camera` and `--source` as overrides of `sources.NAME`; a source without a name gets one that is free.

    A name that the file has too stands for the whole source: none of its keys there remains. Whoever types a source
    sits there: a camera that is not there is told of at once, not waited for.
    """
    taken: dict[str, str] = {}
    for text in (*cameras, *sources):
        name, uri = split_name(text)
        if name is None:
            camera = f"camera{int(text)}" if text.isdecimal() and len(text) <= MAX_DIGITS else None
            name = camera or default_name(parse_uri(uri), {*taken, *in_file})
        if name in taken:
            raise click.UsageError(f"two sources are called {name}")
        taken[name] = uri
    overrides: list[tuple[str, Any]] = []
    for name, uri in taken.items():
        overrides += [(f"sources.{name}", uri), (f"sources.{name}.wait", False)]
    return overrides
