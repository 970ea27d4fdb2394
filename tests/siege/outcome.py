"""What came of a siege, which promises were broken, and the page that says so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.siege.memory import MIB, Peaks
from tests.siege.stage import GOOD, SECRET
from tests.siege.witness import Gap, Heard, unexcused

MAX_LOG_BYTES = 1 << 20


@dataclass
class Outcome:
    """`budget`: bytes by the name of the peak that they are for. `not_back`: what was not as before when the attacks
    were over, though there was time. `answers`: what /healthz said, 0 where it said nothing in time."""

    seed: int
    attacks: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    heard: dict[str, Heard] = field(default_factory=dict)
    broken_list: list[tuple[int, int]] = field(default_factory=list)
    scarce: bool = False
    ended_early: bool = False
    exit_code: int | None = None
    peaks: Peaks = field(default_factory=Peaks)
    budget: dict[str, int] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    not_back: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def starts(self) -> int:
        """Sessions that anybody heard of."""
        return len({session for heard in self.heard.values() for session in heard.sessions})

    @property
    def gaps(self) -> dict[str, list[Gap]]:
        """By subscriber, the gaps for which there was no reason."""
        return {name: unexcused(heard.gaps, self.broken_list) for name, heard in self.heard.items()}

    def broken(self) -> list[str]:
        """The promises that were not kept, a line each."""
        return [*self._process(), *self._subscribers(), *self._memory(), *self._said()]

    def _process(self) -> list[str]:
        found = [f"exit code {self.exit_code}"] if self.exit_code != 0 else []
        if self.ended_early:
            found.append("the process ended before it was asked to")
        if self.starts != 1:
            found.append(f"{self.starts} starts of the process")
        found += [f"not as before: {what}" for what in self.not_back]
        found += [f"a process was left: {what}" for what in self.left]
        if self.answers[503]:
            found.append(f"/healthz said 503 {self.answers[503]} times: whoever asks would have restarted the daemon")
        return found

    def _subscribers(self) -> list[str]:
        found = []
        for name, heard in self.heard.items():
            if heard.unaccounted or heard.vanished:
                found.append(f"{name}: {heard.unaccounted + heard.vanished} frames unaccounted for")
            found += [f"{name}: {what}" for what in heard.invalid]
            if heard.malformed:
                found.append(f"{name}: {heard.malformed} messages that were none")
            found += [f"{name}: {source} gave no result" for source in GOOD if not heard.results.get(source)]
            if (lost := self.gaps[name]) and not self.scarce:  # for want of a descriptor a connection may be lost
                found.append(f"{name}: {sum(abs(gap.count) for gap in lost)} messages lost in {len(lost)} gaps")
        return found

    def _memory(self) -> list[str]:
        return [
            f"memory: {name} held {getattr(self.peaks, name) // MIB} MiB, and may hold {allowed // MIB}"
            for name, allowed in self.budget.items()
            if getattr(self.peaks, name) > allowed
        ]

    def _said(self) -> list[str]:
        found = []
        size = len(self.log.encode())
        if size >= MAX_LOG_BYTES:
            found.append(f"a log of {size} bytes")
        if "Traceback" in self.log:
            found.append("a traceback in the log")
        if SECRET in self.log or any(SECRET in line for line in self.lines):
            found.append("a camera's password in what was written")
        if any(ord(sign) < 32 and sign not in "\n\t" for sign in self.log):
            found.append("control characters in the log")
        if bad := [line for line in self.lines if not _is_json(line)]:
            found.append(f"{len(bad)} lines of the file that are none: {bad[0][:80]!r}")
        return found


def read_lines(path: Path) -> list[str]:
    """The lines of a file; the last one too, where its end is missing."""
    return path.read_text("utf-8", "replace").splitlines() if path.exists() else []


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def page(outcome: Outcome) -> str:
    """A table, as it stands in docs/reliability.md."""
    heard = outcome.heard
    attacks = ", ".join(f"{name} {count}" for name, count in sorted(outcome.attacks.items()))
    results = ", ".join(f"{name} {max((h.results.get(name, 0) for h in heard.values()), default=0):,}" for name in GOOD)
    gaps = "; ".join(
        f"{name} {sum(abs(gap.count) for gap in h.gaps)}, of which without a reason "
        f"{sum(abs(gap.count) for gap in outcome.gaps[name])}"
        for name, h in heard.items()
    )
    memory = [
        (f"most memory: {what}", f"{getattr(outcome.peaks, name) // MIB} MiB of {outcome.budget.get(name, 0) // MIB}")
        for name, what in (
            ("daemon", "the daemon without its frames"),
            ("frames", "frames"),
            ("child", "the largest process of a source"),
            ("trial", "the trial of a network"),
            ("together", "all together"),
        )
    ]
    rows = [
        ("attacks", f"{outcome.attacks.total()} in {outcome.seconds:.0f} s: {attacks}"),
        ("results of the good cameras", results),
        ("status messages", ", ".join(f"{name} {h.statuses:,}" for name, h in heard.items())),
        ("frames unaccounted for", str(sum(h.unaccounted + h.vanished for h in heard.values()))),
        ("messages that good subscribers lost", gaps),
        ("the longest that one waited", f"{max((h.waited_s for h in heard.values()), default=0):.1f} s"),
        ("answers of /healthz", ", ".join(f"{code or 'none in time'}: {n}" for code, n in outcome.answers.items())),
        ("starts of the process, exit code", f"{outcome.starts}, {outcome.exit_code}"),
        *memory,
        ("processes at a time", str(outcome.peaks.children)),
        ("log", f"{len(outcome.log.encode()):,} bytes"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {said} |" for what, said in rows)])
