"""What a shell may complete an option or argument to; how it asks is in `_shells.py`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import click
from click.shell_completion import CompletionItem

from edgeinfer.config import card, plugins

SCHEMES = ("demo:", "rtsp://", "rtsps://", "http://", "v4l2:///dev/", "csi://0", "gst:")
"""How a source's URI may begin."""
Items: TypeAlias = "list[CompletionItem[str]]"


def models(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Networks that ship with the package, and ONNX files here; other files where none of them fits."""
    here = [path.name for path in Path().glob("*.onnx")]
    return fitting([*card.vendored(), *here], incomplete) or files(_ctx, _param, incomplete)


def backends(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """What can run a network."""
    return fitting(["auto", *plugins.names("backends")], incomplete)


def sources(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """How a URI may begin, also after a name; files where that is not how this one does."""
    name, equals, begun = incomplete.rpartition("=")
    whole = [CompletionItem(f"{name}{equals}{item.value}") for item in fitting(SCHEMES, begun)]
    return whole or files(_ctx, _param, incomplete)


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Whatever the shell finds."""
    return [CompletionItem(incomplete, type="file")]


def fitting(values: Iterable[str], incomplete: str) -> Items:
    """Those that begin so, and that a shell takes as they are."""
    return [CompletionItem(value) for value in sorted(values) if value.startswith(incomplete) and plain(value)]


def plain(value: str) -> bool:
    """Whether nothing in it means something to a shell."""
    return shlex.quote(value) == value
