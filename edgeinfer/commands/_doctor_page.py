"""The page that `edgeinfer doctor` prints for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeinfer.commands._drawing import BAD, GOOD, NOTE, WARNING, cell, console
from edgeinfer.environment import Environment, Fact
from edgeinfer.environment.diagnosis import Diagnosis, Problem
from edgeinfer.environment.report import FIRST, shown

STYLES = {"error": f"bold {BAD}", "warning": WARNING, "note": NOTE}
LABELS = {
    "l4t": "L4T",
    "soc": "SoC",
    "gpu": "GPU",
    "os": "OS",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "jetpack": "JetPack",
}
WORDS = {
    **LABELS,
    "tensorrt": "TensorRT",
    "rtx": "RTX",
    "onnxruntime": "ONNX Runtime",
    "sm": "SM",
    "dla": "DLA",
}
BYTES = ("memory", "gpu_memory")
TWINS = {"system_python": "python", "tensorrt_system_module": "tensorrt_module"}
"""Facts that are worth a row only where they differ from another."""


def show(env: Environment, problems: list[Problem], verdict: Diagnosis, *, verbose: bool) -> None:
    """Prints facts, problems and the verdict."""
    out = console()
    out.print(_facts(env, verbose=verbose))
    for problem in problems:
        out.print()
        out.print(_problem(problem))
    out.print()
    out.print(_verdict(verdict))


def _facts(env: Environment, *, verbose: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "value", "source"):
        table.add_column(heading, overflow="fold")
    facts = shown(env)
    for name, fact in facts.items():
        said = name in TWINS and fact.value == facts[TWINS[name]].value
        if verbose or name in FIRST or (fact.readings and not said):
            _add_rows(table, name, fact, verbose=verbose)
    return table


def _add_rows(table: Table, name: str, fact: Fact[Any], *, verbose: bool) -> None:
    if fact.chosen is None:
        table.add_row(_label(name), Text("unknown", "dim"), "")
        return
    table.add_row(_label(name), cell(_value(name, fact.value)), cell(str(fact.source), "dim"))
    others = [reading for reading in fact.readings if reading != fact.chosen] if verbose else fact.disagreements
    for other in others:
        style = WARNING if other in fact.disagreements else "dim"
        table.add_row("", cell(_value(name, other.value), style), cell(other.source, "dim"))


def _label(name: str) -> str:
    words = [WORDS.get(word, word) for word in name.split("_")]
    return " ".join(words)


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in BYTES:
        return f"{value / 2**30:.1f} GiB"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _problem(problem: Problem) -> RenderableType:
    severity = (f"{problem.severity}: ", STYLES[problem.severity])
    return Group(Text.assemble(severity, cell(problem.message)), Text.assemble("  → ", cell(problem.remedy)))


def _verdict(verdict: Diagnosis) -> Text:
    style = f"bold {GOOD if verdict.backend else BAD}"
    what = f"backend: {verdict.backend}" if verdict.backend else "nothing can run"
    return Text.assemble((what, style), cell(f": {verdict.reason}"))
