"""The hand-over: newest wins for live sources, nothing is lost for files, equal sources get equal turns."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.types import Capture, Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(source: str, number: int, t_mono_ns: int = 0) -> Frame:
    return Frame(source, number, Capture(IMAGE, 0, t_mono_ns), live=True)


def names(frames: list[Frame]) -> list[tuple[str, int]]:
    return [(frame.source, frame.frame_id) for frame in frames]


class Waiter:
    """A call that waits inside the mailbox, on a thread of its own."""

    def __init__(self, box: Mailbox, condition: Callable[[], threading.Condition], call: Callable[[], Any]) -> None:
        self.answers: list[Any] = []
        self._thread = threading.Thread(target=lambda: self.answers.append(call()), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with box._lock:
                if getattr(condition(), "_waiters", ()):
                    return
            time.sleep(0.001)
        raise AssertionError("it does not wait")

    def answer(self) -> Any:
        """What it came back with, long before its own timeout."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "nobody woke it"
        return self.answers[0]


def writer(box: Mailbox, source: str, number: int) -> Waiter:
    return Waiter(box, lambda: box._lanes[source].room, lambda: box.put_wait(frame(source, number), 100))


def taker(box: Mailbox, limit: int = 1) -> Waiter:
    return Waiter(box, lambda: box._arrived, lambda: names(box.take(limit, 100)))


def test_a_newer_live_frame_takes_the_older_ones_place_in_line() -> None:
    box = Mailbox()
    assert box.put_latest(frame("a", 0)) is None
    assert box.put_latest(frame("b", 0)) is None
    replaced = box.put_latest(frame("a", 1))
    assert replaced is not None
    assert replaced.frame_id == 0
    assert [(f.source, f.frame_id) for f in box.take(4, 0)] == [("a", 1), ("b", 0)]


def test_a_file_waits_for_room_and_goes_on_when_there_is_some() -> None:
    box = Mailbox(depth=1)
    assert box.put_wait(frame("a", 0), 0)
    assert not box.put_wait(frame("a", 1), 0.01)
    waiting = writer(box, "a", 1)
    assert names(box.take(1, 0)) == [("a", 0)]
    assert waiting.answer() is True
    assert names(box.take(1, 0)) == [("a", 1)]


def test_a_file_goes_on_when_half_of_its_lane_is_free() -> None:
    box = Mailbox(depth=4)
    assert all(box.put_wait(frame("a", number), 0) for number in range(4))
    waiting = writer(box, "a", 4)
    assert names(box.take(2, 0)) == [("a", 0), ("a", 1)]
    assert waiting.answer() is True
    assert len(box) == 3


def test_a_deeper_lane_lets_in_at_once_who_waited_for_room() -> None:
    box = Mailbox(depth=1)
    box.put_wait(frame("a", 0), 0)
    waiting = writer(box, "a", 1)
    box.set_depth(2)
    assert waiting.answer() is True
    box.set_depth(1)
    assert not box.put_wait(frame("a", 2), 0)


@pytest.mark.parametrize("live", [True, False])
def test_whoever_takes_is_woken_by_the_first_frame(live: bool) -> None:
    box = Mailbox()
    waiting = taker(box)
    assert box.put_latest(frame("a", 0)) is None if live else box.put_wait(frame("a", 0), 0)
    assert waiting.answer() == [("a", 0)]


def test_closing_wakes_everyone_and_returns_what_waited() -> None:
    box = Mailbox(depth=1)
    box.put_wait(frame("a", 0), 0)
    waiting = writer(box, "a", 1)
    assert names(box.close()) == [("a", 0)]
    assert waiting.answer() is False
    late = frame("a", 2)
    assert box.put_latest(late) is late
    assert not box.put_wait(late, 100)
    assert box.take(1, 100) == []
    empty = Mailbox()
    waiting = taker(empty)
    empty.close()
    assert waiting.answer() == []


def test_a_batch_takes_one_of_each_before_a_second_of_any() -> None:
    box = Mailbox(depth=3)
    for number in range(3):
        box.put_wait(frame("a", number), 0)
    box.put_wait(frame("b", 0), 0)
    assert [(f.source, f.frame_id) for f in box.take(3, 0)] == [("a", 0), ("b", 0), ("a", 1)]


SOURCES = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("live"), SOURCES),
    st.tuples(st.just("file"), st.sampled_from("wxyz")),
    st.tuples(st.just("take"), st.integers(1, 5)),
    st.tuples(st.just("depth"), st.integers(1, 4)),
    st.tuples(st.just("forget"), st.sampled_from("abcdwxyz")),
)


class Model:
    """What the mailbox promises, kept in plain lists beside one."""

    def __init__(self) -> None:
        self.box, self.depth = Mailbox(depth=2), 2
        self.lanes: dict[str, list[int]] = defaultdict(list)
        self.numbers: Counter[str] = Counter()
        self.served: dict[str, int] = {}
        self.turn = 0

    def put(self, source: str, live: bool) -> None:
        lane, number = self.lanes[source], self.numbers[source]
        self.numbers[source] += 1
        if live:
            replaced = self.box.put_latest(frame(source, number))
            assert (replaced.frame_id if replaced else None) == (lane.pop() if lane else None)
            lane.append(number)
        else:
            room = len(lane) < self.depth
            assert self.box.put_wait(frame(source, number), 0) is room
            lane += [number] * room

    def take(self, limit: int) -> None:
        taken = names(self.box.take(limit, 0))
        assert len(taken) == min(limit, sum(map(len, self.lanes.values())))
        for source, number in taken:
            waiting = [name for name, lane in self.lanes.items() if lane]
            longest_ago = min(self.served.get(name, 0) for name in waiting)
            assert self.served.get(source, 0) == longest_ago, "somebody else's turn was passed over"
            assert number == self.lanes[source].pop(0), "a source's frames changed places"
            self.turn += 1
            self.served[source] = self.turn

    def forget(self, source: str) -> None:
        self.box.forget(source)
        if not self.lanes[source]:
            self.served.pop(source, None)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(STEPS, max_size=60))
def test_everybody_gets_a_turn_and_every_frame_comes_out_once_in_order(steps: list[tuple[str, Any]]) -> None:
    model = Model()
    for action, value in steps:
        if action in ("live", "file"):
            model.put(value, action == "live")
        elif action == "take":
            model.take(value)
        elif action == "depth":
            model.depth = value
            model.box.set_depth(value)
        else:
            model.forget(value)
        assert len(model.box) == sum(map(len, model.lanes.values()))
    left = names(model.box.close())
    assert sorted(left) == sorted((source, number) for source, lane in model.lanes.items() for number in lane)
    assert len(model.box) == 0


def test_a_source_that_has_gone_is_not_waited_for() -> None:
    box = Mailbox()
    for source in "ab":
        box.put_latest(frame(source, 0))
    box.take(2, 0)
    box.forget("b")
    box.put_latest(frame("a", 1))
    assert names(box.take(16, 0, company_s=60)) == [("a", 1)]


def test_a_frame_whose_time_has_passed_is_told_of_once_and_not_given_out() -> None:
    now, told = [1000], list[str]()
    box = Mailbox(clock=lambda: now[0])
    box.put_latest(frame("a", 0, 1000), 50, lambda: told.append("a"))
    box.put_latest(frame("b", 0, 1001), 50, lambda: told.append("b"))
    box.put_latest(frame("c", 0, 0), None, lambda: told.append("c"))
    now[0] = 1051
    assert names(box.take(2, 0)) == [("b", 0), ("c", 0)], "what is passed over takes no place in the batch"
    assert told == ["a"]
    box.put_latest(frame("a", 1, 0), 50)
    assert box.take(1, 0) == []
    assert len(box) == 0


def test_frames_wait_for_company_until_the_batch_is_full() -> None:
    box = Mailbox(depth=4)
    for number in range(3):
        assert box.put_wait(frame("a", number), 0)
    assert box.take(4, 0, company_s=60) == []
    assert box.put_wait(frame("a", 3), 0)
    assert [f.frame_id for f in box.take(4, 0, company_s=60)] == [0, 1, 2, 3]


def test_company_comes_while_it_is_waited_for() -> None:
    box = Mailbox(depth=4)
    box.put_wait(frame("a", 0), 0)
    threading.Timer(0.05, lambda: box.put_wait(frame("a", 1), 0)).start()
    assert len(box.take(2, 30, company_s=30)) == 2


def test_frames_wait_no_longer_than_they_may() -> None:
    box = Mailbox(depth=4)
    box.put_wait(frame("a", 0), 0)
    taken: list[Frame] = []
    thread = threading.Thread(target=lambda: taken.extend(box.take(4, 100, company_s=0.01)), daemon=True)
    thread.start()
    thread.join(20)
    assert names(taken) == [("a", 0)]


def test_with_a_frame_of_every_camera_there_is_nobody_to_wait_for() -> None:
    box = Mailbox()
    box.put_latest(frame("a", 0))
    box.put_latest(frame("b", 0))
    assert len(box.take(16, 0, company_s=60)) == 2
    box.put_latest(frame("a", 1))
    assert box.take(16, 0, company_s=60) == []


def test_a_file_is_waited_for_as_it_may_have_more() -> None:
    box = Mailbox(depth=4)
    box.put_latest(frame("a", 0))
    box.put_wait(frame("b", 0), 0)
    assert box.take(16, 0, company_s=60) == []


def test_company_is_waited_for_since_the_first_frame_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    box = Mailbox(depth=8)
    for number in range(2):
        box.put_wait(frame("a", number), 0)
        now[0] += 3
    assert box.take(8, 0, company_s=6.5) == []
    now[0] += 0.5
    assert len(box.take(8, 0, company_s=6.5)) == 2
    now[0] += 60
    box.put_wait(frame("a", 2), 0)
    assert box.take(8, 0, company_s=6.5) == [], "those before are gone, and their time with them"
    now[0] += 7
    assert names(box.take(8, 0, company_s=6.5)) == [("a", 2)]


def test_nobody_waits_for_company_of_frames_that_have_none() -> None:
    assert Mailbox().take(8, 0, company_s=60) == []


def test_the_oldest_frame_that_waits_of_a_live_source_gives_way_and_nobody_elses() -> None:
    box = Mailbox(depth=4)
    box.put_latest(frame("a", 0))
    box.put_latest(frame("b", 0))
    box.put_wait(frame("file", 0), 0)
    given = box.give_way("a")
    assert given is not None
    assert names([given]) == [("a", 0)]
    assert [box.give_way(name) for name in ("a", "file", "nobody")] == [None] * 3
    assert names(box.take(8, 0)) == [("b", 0), ("file", 0)]
