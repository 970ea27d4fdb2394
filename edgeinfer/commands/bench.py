"""`edgeinfer bench`: measure the pipeline against the raw network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from edgeinfer.bench.growth import draw_growth
from edgeinfer.bench.plot import draw
from edgeinfer.bench.report import benchmark
from edgeinfer.bench.tables import print_report
from edgeinfer.bench.ways import KINDS, BenchPlan
from edgeinfer.commands import _completing
from edgeinfer.commands._options import json_output, verbose
from edgeinfer.commands._terminal import echo, echo_json
from edgeinfer.config.overrides import parse_override
from edgeinfer.pictures.charts import check_place


@click.command("bench")
@click.option(
    "--source", "--video", "source", metavar="FILE", help="The video to play; by default one is made from the demo."
)
@click.option(
    "--model",
    metavar="NAME|FILE",
    help="Name of a model, or an ONNX file with its card beside it.",
    shell_complete=_completing.models,
)
@click.option(
    "--backend", metavar="NAME", help="What runs the model; auto by default.", shell_complete=_completing.backends
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How often everything is measured.",
)
@click.option(
    "--frames",
    metavar="N",
    type=click.IntRange(20, 100_000),
    default=150,
    show_default=True,
    help="Frames per measurement.",
)
@click.option(
    "--sources",
    default="1",
    show_default=True,
    metavar="N,N,…",
    help="How many sources to feed at once, for each number in every way.",
)
@click.option(
    "--rtsp", metavar="N,N,…", help="How many network cameras on this machine; as many as --sources. 0: none."
)
@click.option(
    "--growth",
    type=click.IntRange(0, 256),
    default=0,
    metavar="N",
    help="Videos and network cameras with 1, 2, 4, … up to N sources too.",
)
@click.option("--only", metavar="WAY,…", help=f"Of {', '.join(KINDS)}.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    metavar="FILE.png",
    help="Draw where a frame's time goes, and FILE-growth.png where --growth is given.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Override any key; repeatable.")
@json_output
@verbose
def command(as_json: bool, plot: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Measures, in turn and several times: the raw network, and the pipeline from memory, from a video file as fast as
    can be and at its own rate, from network cameras and from 30 fps cameras."""
    short = [("model", options["model"]), ("backend.name", options["backend"])]
    overrides = [*((key, value) for key, value in short if value is not None), *map(parse_override, settings)]
    sources = parse_numbers(options["sources"])
    plan = BenchPlan(
        options["source"],
        sources,
        options["rounds"],
        options["frames"],
        sources if options["rtsp"] is None else _cameras(options["rtsp"]),
        options["growth"],
        parse_kinds(options["only"]),
    )
    if plot is not None:
        check_place(Path(plot))
    report = benchmark(overrides, plan, lambda text: echo(f"edgeinfer: {text}", err=True))
    if as_json:
        echo_json(msgspec.json.format(msgspec.json.encode(report.to_json()), indent=2))
    else:
        print_report(report)
    if plot is not None:
        draw(report, Path(plot))
        if plan.growth:
            draw_growth(report, Path(plot).with_stem(f"{Path(plot).stem}-growth"))


def _cameras(text: str) -> tuple[int, ...]:
    return () if text == "0" else parse_numbers(text, "--rtsp")


def parse_kinds(text: str | None) -> tuple[str, ...]:
    """`memory,file` → kinds of ways; all where none is named."""
    kinds = KINDS if text is None else tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise click.BadParameter(f"{kind!r}: expected some of {', '.join(KINDS)}", param_hint="--only")
    return kinds


def parse_numbers(text: str, option: str = "--sources") -> tuple[int, ...]:
    """`1,4,16` → numbers from 1 to 256."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= 256 for number in numbers):
        raise click.BadParameter(f"{text!r}: expected numbers from 1 to 256, for instance 1,4,16", param_hint=option)
    return numbers
