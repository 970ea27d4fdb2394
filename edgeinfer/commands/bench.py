"""`edgeinfer bench`: measure the pipeline against the raw network."""

from __future__ import annotations

import click
import msgspec

from edgeinfer.bench.report import benchmark, print_report
from edgeinfer.commands._options import json_output, verbose
from edgeinfer.config import parse_override


@click.command("bench")
@click.option("--source", metavar="FILE", help="The video to play; by default one is made from the demo.")
@click.option("--model", help="Name of a model, or an ONNX file with its card beside it.")
@click.option("--backend", help="What runs the model; auto by default.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option(
    "--frames", type=click.IntRange(20, 100_000), default=150, show_default=True, help="Frames per measurement."
)
@click.option("--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Override any key; repeatable.")
@json_output
@verbose
def command(
    source: str | None,
    model: str | None,
    backend: str | None,
    rounds: int,
    frames: int,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measures, in turn and several times: the raw network, and the pipeline from memory, from a video file and from a
    30 fps camera."""
    short = [("model", model), ("backend.name", backend)]
    overrides = [*((key, value) for key, value in short if value is not None), *map(parse_override, settings)]
    report = benchmark(overrides, source, rounds, frames, lambda text: click.echo(f"edgeinfer: {text}", err=True))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report.to_json()), indent=2))
    else:
        print_report(report)
