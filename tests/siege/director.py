"""Keeps two to four attacks going at once, against one daemon, and watches what comes of it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.siege.attacks import ATTACKS, Attack
from tests.siege.memory import Watch, budget, together, until_gone
from tests.siege.outcome import Outcome, read_lines
from tests.siege.stage import GOOD, SUBSCRIBERS, TRIAL, Stage
from tests.siege.witness import Witness

AT_ONCE = (2, 4)
LENGTH_S = (2.0, 15.0)
START_S, END_S = 120.0, 30.0
RECOVERY_S = 240.0
"""A camera that was killed many times is not asked again at once. Nothing waits for longer than it takes."""
FEW = 256
"""Descriptors, in the second part of a siege."""
SHARE_OF_FEW = 0.2


@dataclass
class Going:
    """An attack, and when it is to be over."""

    attack: Attack
    detail: str
    until_s: float
    ends: ExitStack


class Probe(threading.Thread):
    """Asks the daemon whether it is alive, once a second, as a service manager does."""

    def __init__(self, stage: Stage, outcome: Outcome) -> None:
        super().__init__(name="probe", daemon=True)
        self._stage, self._answers = stage, outcome.answers
        self._closing = threading.Event()

    def run(self) -> None:
        while not self._closing.wait(1):
            self._answers[self._stage.health()] += 1

    def close(self) -> None:
        """Ends it."""
        self._closing.set()
        self.join(10)


def siege(folder: Path, seconds: float, seed: int, tell: Callable[[str], None], descriptors: int = 0) -> Outcome:
    """One daemon, attacked for so long; with few `descriptors`, where it is given so many. Leaves no process."""
    outcome = Outcome(seed, scarce=descriptors > 0)
    with ExitStack() as stack:
        stage = Stage(folder, stack, descriptors)
        watch = Watch(stage.process.pid)
        stack.callback(_end_all, watch)
        witnesses = {name: _witness(stage, name, stack) for name in SUBSCRIBERS}
        if problem := _wait(stage, witnesses, 0, START_S):
            outcome.not_back = [f"before the first attack: {what}" for what in problem]
        outcome.budget = budget(watch.baseline(), TRIAL["memory_mb"] << 20)
        for observer in (watch, Probe(stage, outcome)):
            observer.start()
            stack.callback(observer.close)
        _attack(stage, seconds, random.Random(seed), outcome, tell)
        tell("all over")
        _recover(stage, witnesses, outcome)
        outcome.ended_early = not stage.alive
        outcome.exit_code = stage.end(END_S)
        outcome.left = until_gone(watch, END_S)
        outcome.heard = {name: witness.heard for name, witness in witnesses.items()}
        outcome.lines = read_lines(stage.lines)
        outcome.broken_list, outcome.peaks = stage.broken_list, watch.peaks
        outcome.budget["together"] = together(outcome.budget, watch.peaks.children)
        outcome.log = stage.log.read_text("utf-8", "replace")
    return outcome


def parts(folder: Path, seconds: float, seed: int, tell: Callable[[str], None]) -> list[Outcome]:
    """A siege, and a shorter one of a daemon that may have few descriptors."""
    few = seconds * SHARE_OF_FEW
    (folder / "many").mkdir()
    (folder / "few").mkdir()
    many = siege(folder / "many", seconds - few, seed, tell)
    return [many, siege(folder / "few", few, seed + 1, tell, FEW)]


def _witness(stage: Stage, name: str, stack: ExitStack) -> Witness:
    witness = Witness(stage, name)
    witness.start()
    stack.callback(witness.close)
    return witness


def _end_all(watch: Watch) -> None:
    for process in watch.seen:
        with suppress(psutil.Error):
            process.kill()


def _attack(stage: Stage, seconds: float, rng: random.Random, outcome: Outcome, tell: Callable[[str], None]) -> None:
    started_s = time.monotonic()
    plan = _plan(rng)
    going: list[Going] = []
    try:
        while (now_s := time.monotonic()) < started_s + seconds and stage.alive:
            _end_those_due(going, now_s)
            while len(going) < rng.randint(*AT_ONCE):
                one = _begin(plan, going, stage, rng)
                going.append(one)
                outcome.attacks[one.attack.name] += 1
                tell(f"{one.attack.name}{one.detail and f' ({one.detail})'}")
            time.sleep(0.2)
    finally:
        _end_those_due(going, float("inf"))
        outcome.seconds = time.monotonic() - started_s


def _plan(rng: random.Random) -> Iterator[Attack]:
    """Every attack once, in a random order, and then again."""
    while True:
        yield from rng.sample(ATTACKS, len(ATTACKS))


def _begin(plan: Iterator[Attack], going: Sequence[Going], stage: Stage, rng: random.Random) -> Going:
    taken = {one.attack.name for one in going} | {one.attack.group for one in going if one.attack.group}
    attack = next(one for one in plan if not {one.name, one.group} & taken)
    ends = ExitStack()
    detail = ends.enter_context(attack.begin(stage, random.Random(rng.random())))
    return Going(attack, detail, time.monotonic() + rng.uniform(*LENGTH_S), ends)


def _end_those_due(going: list[Going], now_s: float) -> None:
    for one in [one for one in going if one.until_s <= now_s]:
        going.remove(one)
        one.ends.close()


def _recover(stage: Stage, witnesses: dict[str, Witness], outcome: Outcome) -> None:
    """Everything is as before in the end: the cameras, the subscribers, the configuration, the file."""
    stage.write()
    stage.reload()
    outcome.not_back += _wait(stage, witnesses, time.monotonic_ns(), RECOVERY_S)


def _wait(stage: Stage, witnesses: dict[str, Witness], since_ns: int, patience_s: float) -> list[str]:
    """What is still not well after so long; nothing, as soon as all is."""
    end_s = time.monotonic() + patience_s
    while (found := _unwell(stage, witnesses, since_ns)) and time.monotonic() < end_s and stage.alive:
        time.sleep(0.5)
    return found


def _unwell(stage: Stage, witnesses: dict[str, Witness], since_ns: int) -> list[str]:
    found = [] if stage.health() == 200 else ["/healthz"]
    if not _written(stage.lines, since_ns):
        found.append("the file sink")
    for name, witness in witnesses.items():
        heard = witness.heard
        if not witness.alive:
            found.append(f"subscriber {name} has ended")
        found += [f"{name} hears nothing of {source}" for source in GOOD if heard.last_ns.get(source, 0) <= since_ns]
        states = {source: heard.state.get(source, "unknown") for source in GOOD}
        found += [f"{name}: {source} is {state}" for source, state in states.items() if state != "running"]
        requested, finished, good = heard.reload
        if since_ns and not (finished >= requested > 0 and good):
            found.append(f"{name}: {requested} reloads asked for, {finished} done, the last one {good}")
    return found


def _written(path: Path, since_ns: int) -> bool:
    """Whether the file has a whole line that was published after this instant."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 100_000))
        last = file.read().decode("utf-8", "replace").splitlines()[-2:-1]
        return any(_stamp(line) > since_ns for line in last)
    return False


def _stamp(line: str) -> int:
    digits = line.partition('"t_publish_mono_ns":')[2].partition(",")[0]
    return int(digits) if digits.isdigit() else 0
