"""Tries on a Jetson what edgeinfer assumes of one, and writes down what came of it. See `acceptance-jetson`.

Each trial is a function that gives a verdict with its evidence. What can't be tried on this machine says why.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from acceptance_bench import Bench, Trial, Verdict
from acceptance_trials import TRIALS

from edgeinfer.guard.redaction import redact, remember_text


@dataclass(frozen=True, slots=True)
class Line:
    """An assumption, and what became of it."""

    assumption: str
    verdict: Verdict
    seconds: float


MARKS = {"confirmed": "✓", "refuted": "✗", "not tested": "–"}


def main(argv: list[str], trials: tuple[Trial, ...] = TRIALS) -> int:
    """Returns the exit code: 0 where nothing was refuted, else 1."""
    parser = argparse.ArgumentParser(prog="acceptance-jetson")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--camera", action="append", default=[])
    parser.add_argument("folder", nargs="?", type=Path)
    asked = parser.parse_args(argv)
    folder = asked.folder or Path(f"acceptance-{time.strftime('%Y%m%d-%H%M')}")
    folder.mkdir(parents=True, exist_ok=True)
    for uri in asked.camera:
        remember_text(uri)
    bench = Bench(folder.resolve(), asked.quick, tuple(asked.camera))
    lines = []
    for trial in trials:
        lines.append(tried(trial, bench))
        say(lines[-1])
        write(folder, lines)
    refuted = [line for line in lines if line.verdict.outcome == "refuted"]
    print(f"acceptance: {len(refuted)} of {len(lines)} assumptions refuted; the report is {folder / 'report.md'}")
    return 1 if refuted else 0


def tried(trial: Trial, bench: Bench) -> Line:
    """One trial, whatever it does."""
    started = time.monotonic()
    try:
        verdict = trial.attempt(bench)
    except Exception as error:  # the other trials are to be made all the same
        verdict = Verdict("not tested", f"the trial itself failed: {type(error).__name__}: {error}")
    return Line(trial.assumption, Verdict(verdict.outcome, redact(verdict.evidence)), time.monotonic() - started)


def say(line: Line) -> None:
    """For whoever watches."""
    print(f"{MARKS[line.verdict.outcome]} {line.assumption}: {' '.join(line.verdict.evidence.split())}", flush=True)


def write(folder: Path, lines: list[Line]) -> None:
    """After each trial, so that a machine that dies leaves what was found out until then."""
    cells: Callable[[str], str] = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    rows = [
        f"| {cells(x.assumption)} | {x.verdict.outcome} | {cells(x.verdict.evidence)} | {x.seconds:.0f} s |"
        for x in lines
    ]
    head = [
        "# What was found out on this machine",
        "",
        "| assumption | verdict | evidence | took |",
        "|---|---|---|---|",
    ]
    (folder / "report.md").write_text("\n".join([*head, *rows, ""]), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps([asdict(line) for line in lines], indent=2), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
