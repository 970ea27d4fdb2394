"""Plots of what a command knows. What draws loads OpenCV, and is imported where a plot is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from edgeinfer.engine.store.manifest import Manifest


def draw_errors(engine: Manifest, path: Path) -> None:
    """See `_errors_plot.py`. Raises UsageError where no picture can be written, and InputError."""
    importlib.import_module("edgeinfer.pictures.charts").check_place(path)
    importlib.import_module("edgeinfer.commands._errors_plot").draw_errors(engine, path)
