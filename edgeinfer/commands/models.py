"""`edgeinfer models`: list models, show a card, inspect an ONNX file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml
from rich.table import Table

from edgeinfer.commands import _completing
from edgeinfer.commands._drawing import cell, console
from edgeinfer.commands._group import Group
from edgeinfer.commands._options import json_output, verbose
from edgeinfer.commands._terminal import echo, echo_json, echo_lines
from edgeinfer.config import card, plugins
from edgeinfer.errors import InputError
from edgeinfer.models import onnxfile
from edgeinfer.types import TensorSpec


@click.group("models", cls=Group)
def command() -> None:
    """The models at hand, their cards, and a look into any ONNX file."""


@command.command("ls")
@json_output
@verbose
def ls(as_json: bool) -> None:
    """Lists the models that ship with edgeinfer."""
    models = [card.load_model(name) for name in card.vendored()]
    if as_json:
        echo_json(_json([_row(model) for model in models]))
        return
    table = Table(box=None)
    for heading in ("name", "id", "task", "input", "classes", "licence"):
        table.add_column(heading)
    for row in map(_row, models):
        table.add_row(*(cell(str(row[key])) for key in ("name", "id", "task", "input", "classes", "license")))
    console().print(table)


@command.command("show")
@click.argument("name", shell_complete=_completing.models)
@json_output
@verbose
def show(name: str, as_json: bool) -> None:
    """Shows the card of model NAME (or of an ONNX file with a card beside it)."""
    model = card.load_model(name)
    data = {**msgspec.to_builtins(model.card), "id": model.id, "path": str(model.path), "sha256": model.sha256}
    if as_json:
        echo_json(_json(data))
    else:
        echo_lines(yaml.safe_dump(data, sort_keys=False, width=100).rstrip())


@command.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--card", "draft", is_flag=True, help="Print a card to start from instead.")
@json_output
@verbose
def inspect(file: Path, draft: bool, as_json: bool) -> None:
    """Shows the inputs and outputs of an ONNX FILE."""
    digest = onnxfile.identify(file).sha256
    inputs, outputs = plugins.load("backends", "onnxruntime").specs(file)
    if draft:
        echo_lines(_draft(file, digest, inputs, outputs))
    elif as_json:
        echo_json(_json({"file": str(file), "sha256": digest, "inputs": inputs, "outputs": outputs}))
    else:
        for kind, specs in (("input", inputs), ("output", outputs)):
            for spec in specs:
                echo(f"{kind}  {spec.name}  {list(spec.shape)}  {spec.dtype}")


def _row(model: card.Model) -> dict[str, Any]:
    size = model.card.input
    return {
        "name": model.card.name,
        "id": model.id,
        "task": model.card.task,
        "input": f"{size.width} × {size.height}",
        "classes": len(model.card.labels),
        "license": model.card.license,
    }


def _draft(file: Path, digest: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> str:
    """A card with what the file tells; what it can't tell stands as a comment or a default to check."""
    if not inputs or not outputs:
        raise InputError(f"{file}: a network without inputs or outputs can't be run")
    first = inputs[0]
    height, width = first.shape[2:4] if len(first.shape) == 4 else (-1, -1)
    boxes = next((spec for spec in outputs if spec.shape[-1:] == (4,)), outputs[0])
    scores = next((spec for spec in outputs if spec is not boxes), outputs[-1])
    classes = max(1, scores.shape[-1]) if scores.shape else 1
    data = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._")[:64] or "model",
        "file": file.name,
        "sha256": digest,
        "task": "detection",
        "max_batch": max(1, first.shape[0]),
        "input": {
            "name": first.name,
            "width": width if width > 0 else 640,
            "height": height if height > 0 else 640,
            "color": "rgb",
            "mean": [0.0, 0.0, 0.0],
            "std": [255.0, 255.0, 255.0],
            "resize": "letterbox",
            "fill": 114,
        },
        "decoder": {"name": "boxes_scores", "options": {"boxes": boxes.name, "scores": scores.name}},
        "thresholds": {"score": 0.4, "iou": 0.6},
        "labels": [f"class{i}" for i in range(classes)],
    }
    head = (
        "# Drafted from the file. Check color, mean, std, the decoder and the labels: an ONNX file doesn't tell them.\n"
    )
    return head + yaml.safe_dump(data, sort_keys=False, width=100).rstrip()


def _json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()
