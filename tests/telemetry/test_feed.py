"""Child processes that tell of the machine: what they say is used while it is fresh, and nobody waits for them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from edgeinfer.environment import jtop
from edgeinfer.environment.tree import Tree
from edgeinfer.messages import MachineVitals
from edgeinfer.telemetry import feed as feed_module
from edgeinfer.telemetry import feeds, nvml_child
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.feed import MAX_BYTES, RETRY_S, SILENT_S, STALE_S, Answer, Feed
from edgeinfer.telemetry.governor import Governor
from edgeinfer.telemetry.sampler import Sampler

GOOD = (
    '{"version": "7.2.2", "gpu_load": 0.437, "gpu_hz": 918000000, "power_mw": {"VDD_IN": 3580}, "hardware": {"a": "b"}}'
)
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def made() -> Iterator[list[Feed]]:
    found: list[Feed] = []
    yield found
    for one in found:
        one.close()


def feed(made: list[Feed], code: str, why: str = "") -> Feed:
    made.append(Feed("x", [sys.executable, "-c", code], lambda: why))
    return made[-1]


def heard(one: Feed, now_s: float = 0.0) -> Answer | None:
    """Reads until there is an answer, or no child any more."""
    one.read(now_s)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (answer := one.read(now_s)) is not None or not one.running:
            return answer
        time.sleep(0.01)
    raise AssertionError("neither an answer nor an end")


def says(*lines: str, then: str = SLEEP) -> str:
    return f"import sys\nfor line in {lines!r}: print(line, flush=True)\n{then}"


def pid(one: Feed) -> int:
    assert one._process is not None
    return one._process.pid


def test_the_newest_answer_while_it_is_fresh(made: list[Feed]) -> None:
    one = feed(made, says(GOOD.replace("0.437", "0.9"), GOOD))
    answer = heard(one)
    end = time.monotonic() + 60
    while answer is not None and answer.gpu_load != 0.437 and time.monotonic() < end:
        answer = one.read(0.0)
    assert answer == Answer(version="7.2.2", gpu_load=0.437, gpu_hz=918_000_000, power_mw={"VDD_IN": 3580})
    assert one.read(STALE_S - 0.1) == answer
    assert one.read(STALE_S) is None
    assert one.running, "it may only be slow"


def test_a_child_that_says_nothing_is_ended_and_tried_again(made: list[Feed], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one = feed(made, SLEEP)
    assert one.read(100.0) is None
    first = pid(one)
    assert one.read(100.0 + SILENT_S - 1) is None
    assert pid(one) == first
    one.read(100.0 + SILENT_S)
    assert not one.running
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert caplog.messages == ["telemetry: x is not used: it gave no answer"]
    one.read(100.0 + SILENT_S + RETRY_S - 1)
    assert not one.running
    one.read(100.0 + SILENT_S + RETRY_S)
    assert one.running


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("pass", "it has ended"),
        (says("not json"), "it says what makes no sense"),
        (says("[" * 1000), "it says what makes no sense"),
        (says('{"gpu_load": 7}'), "it says what makes no sense"),
        (says('{"gpu_load": "much"}'), "it says what makes no sense"),
        (says('{"power_mode": "a\\u001b[2J"}'), "it says what makes no sense"),
        (f"print('x' * {MAX_BYTES * 3}, end='', flush=True); {SLEEP}", "it says what makes no sense"),
        (says('{"fault": "version 7.1 of the service, 7.2.2 of the client"}'), "version 7.1 of the service"),
        ("import os; os.kill(os.getpid(), 9)", "it has ended"),
    ],
)
def test_whatever_a_child_does_is_a_line_in_the_log(
    made: list[Feed], caplog: pytest.LogCaptureFixture, code: str, why: str
) -> None:
    caplog.set_level(logging.DEBUG)
    one = feed(made, code)
    assert heard(one) is None
    assert not one.running
    assert why in caplog.text
    assert heard(one, RETRY_S) is None
    assert len(caplog.messages) == 1, "the same is not told again"


def test_what_stands_in_the_way_is_told_once_and_nothing_is_started(
    made: list[Feed], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = feed(made, SLEEP, why="no socket")
    for now in (0.0, 1.0, RETRY_S, 2 * RETRY_S):
        assert one.read(now) is None
    assert not one.running
    assert caplog.messages == ["telemetry: x is not used: no socket"]


def test_a_program_that_is_not_there(made: list[Feed], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made.append(Feed("x", ["/nothing-here"], lambda: ""))
    assert made[0].read(0.0) is None
    assert "it can't be started: No such file" in caplog.text


def test_reading_waits_for_nobody(made: list[Feed], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a child that has said half a line nothing more is to be had, and it is not waited for."""
    one = feed(made, f"import sys; sys.stdout.write('{{'); sys.stdout.flush(); {SLEEP}")
    one.read(0.0)
    assert one._process is not None
    assert one._process.stdout is not None
    assert not os.get_blocking(one._process.stdout.fileno())
    end = time.monotonic() + 60
    while not one._rest and time.monotonic() < end:
        assert one.read(0.0) is None
    assert one._rest == b"{"


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Both of ours, one of them in the middle of an import that hangs."""
    (tmp_path / "jtop.py").write_text("import time; time.sleep(600)")
    path = json.dumps([str(tmp_path), *sys.path]) + "\n"
    for command in ([str(feeds.NVML_CHILD)], [str(jtop.CHILD), "stream"]):
        subprocess.run(
            [sys.executable, "-I", *command], input=path, capture_output=True, text=True, timeout=60, check=True
        )


@given(st.binary(max_size=200))
def test_any_line_is_an_answer_or_the_end_of_it(line: bytes) -> None:
    one = Feed("x", [], lambda: "")
    one._hear(line, 0.0)
    answer = one.read(0.0)
    assert answer is None or isinstance(answer, Answer)


# --- what they add ---


class Fixed(Feed):
    """Says the same for ever."""

    def __init__(self, name: str, answer: Answer | None) -> None:
        super().__init__(name, [], lambda: "")
        self.answer = answer
        self.asked = 0

    def read(self, now_s: float) -> Answer | None:
        self.asked += 1
        return self.answer


JTOP = Answer(
    version="7.2.2", gpu_load=0.5, gpu_hz=7, power_mode="15W", temperatures_c={"cpu": 50.0}, power_mw={"a": 1}
)


def test_what_files_say_comes_first_and_the_rest_says_where_it_comes_from() -> None:
    nvml = Fixed("NVML", Answer(gpu_load=0.25))
    machine = feeds.complete(MachineVitals(gpu_hz=3, power_mw={"b": 2}), [nvml, Fixed("jetson-stats", JTOP)], 0.0)
    assert machine == MachineVitals(
        gpu_hz=3,
        power_mw={"b": 2},
        gpu_load=0.25,
        power_mode="15W",
        temperatures_c={"cpu": 50.0},
        origins={"gpu_load": "NVML", "power_mode": "jetson-stats 7.2.2", "temperatures_c": "jetson-stats 7.2.2"},
    )


def test_a_machine_whose_files_say_all_starts_nothing() -> None:
    whole = MachineVitals(temperatures_c={"a": 1.0}, gpu_load=0.0, gpu_hz=0, power_mode="x", power_mw={"a": 0})
    one = Fixed("x", JTOP)
    assert feeds.complete(whole, [one], 0.0) == whole
    assert one.asked == 0


def test_without_answers_nothing_is_added() -> None:
    assert feeds.complete(MachineVitals(), [Fixed("x", None), Fixed("y", Answer())], 0.0) == MachineVitals()


def test_which_feeds_a_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").write_text("")
    assert feeds.usual(Tree(tmp_path)) == [], "a captured tree"
    monkeypatch.setattr(Tree, "is_live", True)
    for installed, names in ((False, ["NVML"]), (True, ["NVML", "jetson-stats"])):
        monkeypatch.setattr(jtop, "installed", lambda installed=installed: installed)
        assert [one.name for one in feeds.usual(Tree(tmp_path))] == names
    (tmp_path / "dev/nvidiactl").unlink()
    assert [one.name for one in feeds.usual(Tree(tmp_path))] == ["jetson-stats"]


def test_the_sampler_has_them_and_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[Feed]) -> None:
    one = feed(made, says(GOOD))
    monkeypatch.setattr(feeds, "usual", lambda tree: [one])
    monkeypatch.setattr("edgeinfer.telemetry.sampler.PERIOD_S", 0.02)
    sampler = Sampler(tmp_path, Governor(), Bulletin())
    sampler.start()
    end = time.monotonic() + 60
    while (sampler.machine is None or sampler.machine.gpu_load is UNSET) and time.monotonic() < end:
        time.sleep(0.02)
    assert sampler.machine is not None
    assert sampler.machine.origins == {"gpu_load": "x 7.2.2", "gpu_hz": "x 7.2.2", "power_mw": "x 7.2.2"}
    child = pid(one)
    sampler.close()
    sampler.join(60)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


# --- NVML ---


class Nvml:
    """nvml.h, as far as it is called."""

    def __init__(self, count: int = 1, load: int = 37, **statuses: int) -> None:
        self.count, self.load, self.statuses = count, load, statuses

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> int:
            if name == "nvmlDeviceGetCount_v2":
                args[0]._obj.value = self.count
            elif name == "nvmlDeviceGetUtilizationRates":
                args[1]._obj.gpu = self.load
            elif name == "nvmlDeviceGetClockInfo":
                assert args[1] == 1, "NVML_CLOCK_SM"
                args[2]._obj.value = 1575
            return self.statuses.get(name, 0)

        return call


def nvml_says(nvml: Nvml) -> dict[str, Any]:
    return nvml_child.answer(nvml, nvml_child.connect(nvml))


def test_load_and_clock_from_nvml() -> None:
    assert nvml_says(Nvml()) == {"gpu_load": 0.37, "gpu_hz": 1_575_000_000}
    assert nvml_says(Nvml(nvmlDeviceGetUtilizationRates=3)) == {"gpu_hz": 1_575_000_000}
    assert nvml_says(Nvml(nvmlDeviceGetUtilizationRates=3, nvmlDeviceGetClockInfo=3)) == {}
    assert nvml_says(Nvml(load=255))["gpu_load"] == 1


@pytest.mark.parametrize(
    ("nvml", "why"),
    [
        (Nvml(nvmlInit_v2=3), "nvmlInit failed with error 3"),
        (Nvml(count=2), "there are 2 GPUs"),
        (Nvml(count=0), "there are 0 GPUs"),
        (Nvml(nvmlDeviceGetHandleByIndex_v2=15), "error 15"),
    ],
)
def test_an_nvml_that_can_not_be_asked_says_why(nvml: Nvml, why: str) -> None:
    with pytest.raises(nvml_child.NvmlError, match=why):
        nvml_says(nvml)


@pytest.mark.slow
def test_the_real_child_of_nvml(made: list[Feed]) -> None:
    """Where there is a GPU its load and clock, and elsewhere a reason, in one line."""
    made.append(Feed("NVML", [sys.executable, "-I", str(feeds.NVML_CHILD)], lambda: ""))
    answer = heard(made[0])
    if answer is None:
        assert made[0]._told
    else:
        assert answer.gpu_load is not None or answer.gpu_hz is not None
    assert feed_module.log.name == "edgeinfer.telemetry.feed"
