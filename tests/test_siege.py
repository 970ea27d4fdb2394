"""Two minutes of siege, of which `scripts/siege` runs as many as one likes; and that its verdicts can be bad ones."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import structs

from edgeinfer.messages import DetectionsMessage, StatusMessage, decode, encode
from tests.siege import cameras, memory, program
from tests.siege.attacks import ATTACKS
from tests.siege.director import parts
from tests.siege.memory import MIB, Peaks
from tests.siege.outcome import Outcome, page
from tests.siege.stage import GOOD, SECRET
from tests.siege.witness import Gap, Heard, Listener, unexcused
from tests.test_messages import example


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_no_attack_ends_it_fills_it_or_costs_others_anything(tmp_path: Path) -> None:
    told: list[str] = []
    outcomes = parts(tmp_path, seconds=120, seed=7, tell=told.append)
    for outcome in outcomes:
        assert outcome.broken() == [], "\n".join([*told, page(outcome), outcome.log[-8000:]])
    assert len(set(outcomes[0].attacks)) > len(ATTACKS) / 2


def result(seq: int, published_ns: int, **changes: Any) -> DetectionsMessage:
    message = decode(encode(example("detections", seq)))
    assert isinstance(message, DetectionsMessage)
    changes = {"source": "demo", "frame_id": seq, "dropped": 0, **changes}
    return structs.replace(message, t_publish_mono_ns=published_ns, **changes)


def test_a_message_that_is_lost_is_a_gap() -> None:
    listener = Listener(checking=False)
    for seq in (5, 6, 9, 10):
        listener.hear(result(seq, seq * 1000))
    assert listener.heard.results == {"demo": 4}
    assert listener.heard.gaps == [Gap("demo", 2, 6000, 9000)]
    assert listener.heard.vanished == 0


@pytest.mark.parametrize(
    ("windows_s", "left"),
    [([], 1), ([(1, 2)], 1), ([(1, 9)], 0), ([(12, 20)], 0), ([(14, 20)], 1), ([(1, 2), (11, 12)], 0)],
)
def test_only_a_list_that_is_none_excuses_a_gap(windows_s: list[tuple[int, int]], left: int) -> None:
    gap = Gap("demo", 2, 10 * 10**9, 13 * 10**9)
    assert len(unexcused([gap], [(begin * 10**9, end * 10**9) for begin, end in windows_s])) == left


def test_a_frame_of_which_no_drop_was_counted_has_vanished() -> None:
    listener = Listener(checking=False)
    listener.hear(result(3, 1, frame_id=5, dropped=2))
    assert listener.heard.vanished == 0
    listener.hear(result(4, 2, frame_id=8, dropped=3))
    assert listener.heard.vanished == 1


def test_books_that_do_not_add_up_are_seen() -> None:
    listener = Listener(checking=False)
    good = example("status")
    assert isinstance(good, StatusMessage)
    sound = structs.replace(
        good, captured=10, inferred=6, in_flight=1, dropped=3, dropped_by_reason={"stale": 3}, source="demo"
    )
    listener.hear(sound)
    assert (listener.heard.statuses, listener.heard.unaccounted) == (1, 0)
    listener.hear(structs.replace(sound, captured=11))
    listener.hear(structs.replace(sound, dropped_by_reason={}))
    assert listener.heard.unaccounted == 1 + 3


@pytest.mark.parametrize("changes", [{"source": "another"}, {"frame_id": 1}, {"width": 1}])
def test_a_message_that_can_not_be_true_is_seen(changes: dict[str, Any]) -> None:
    listener = Listener(checking=True)
    listener.hear(result(5, 1))
    assert listener.heard.invalid == []
    listener.hear(result(6, 2, **changes))
    assert len(listener.heard.invalid) == 1


def kept() -> Outcome:
    """Of a siege in which all went well."""
    heard = {name: Heard(results=dict.fromkeys(GOOD, 9), sessions=["s"]) for name in ("plain", "checking")}
    outcome = Outcome(1, heard=heard, exit_code=0, answers=Counter({200: 9, 0: 1}))
    outcome.budget = {"daemon": 500 * MIB, "child": 500 * MIB}
    outcome.lines, outcome.log = ['{"kind":"detections"}'], "edgeinfer: all well\n"
    return outcome


def test_kept_promises_are_none_that_were_broken() -> None:
    assert kept().broken() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exit_code": 70}, "exit code 70"),
        ({"exit_code": None}, "exit code None"),
        ({"ended_early": True}, "before it was asked"),
        ({"not_back": ["plain: demo is failed"]}, "demo is failed"),
        ({"left": ["a process"]}, "was left"),
        ({"answers": Counter({200: 9, 503: 1})}, "503"),
        ({"peaks": Peaks(daemon=501 * MIB)}, "may hold 500"),
        ({"peaks": Peaks(child=501 * MIB)}, "may hold 500"),
        ({"log": "x" * 2**20}, "a log of"),
        ({"log": "Traceback (most recent call last)"}, "traceback"),
        ({"log": f"rtsp://u:{SECRET}@x"}, "password"),
        ({"log": "\x1b]0;title\x07"}, "control"),
        ({"lines": ['{"kind":"det', '{"kind":"detections"}']}, "1 lines"),
        ({"lines": [f'{{"a":"{SECRET}"}}']}, "password"),
        ({"heard": {"plain": Heard(sessions=["s"], results=dict.fromkeys(GOOD[1:], 1))}}, "no result"),
        ({"heard": {"plain": Heard(sessions=["s", "t"], results=dict.fromkeys(GOOD, 1))}}, "2 starts"),
        ({"heard": {"plain": Heard(sessions=["s"], results=dict.fromkeys(GOOD, 1), malformed=1)}}, "were none"),
        ({"heard": {"plain": Heard(sessions=["s"], results=dict.fromkeys(GOOD, 1), vanished=1)}}, "unaccounted"),
        (
            {"heard": {"plain": Heard(sessions=["s"], results=dict.fromkeys(GOOD, 1), gaps=[Gap("demo", 4, 1, 2)])}},
            "4 messages lost",
        ),
    ],
)
def test_every_promise_is_looked_at(changes: dict[str, Any], says: str) -> None:
    outcome = kept()
    for name, value in changes.items():
        setattr(outcome, name, value)
    (broken,) = outcome.broken()
    assert says in broken
    assert "| starts of the process, exit code |" in page(outcome)


@pytest.mark.slow
def test_a_program_ends_with_its_block(tmp_path: Path) -> None:
    clip = str(tmp_path / "none.mp4")
    with cameras.hostile("silence", 1, clip) as url, program.running("ports", "slow", port=9, count=1):
        assert url.startswith("rtsp://127.0.0.1:")
        assert memory.held(random.choice(list(children()))).private > 0
    assert not children()


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_siege_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/siege.py", "9", "4"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=program.ROOT, env=environment) as siege:
        assert siege.stdout is not None
        assert b" s: " in siege.stdout.readline(), "the first attack has begun"
        others = psutil.Process(siege.pid).children(recursive=True)
        siege.kill()
    assert len(others) > 10, "the daemon, its processes, cameras, subscribers, attacks"
    _, left = psutil.wait_procs(others, timeout=60)
    assert not left


def children() -> set[int]:
    """Programs of a siege that are running below this process."""
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if "tests.siege.program" in " ".join(child.cmdline())
    }
