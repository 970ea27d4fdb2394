"""The hand-over: newest wins for live sources, nothing is lost for files, equal sources get equal turns."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.types import Capture, Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(source: str, number: int) -> Frame:
    return Frame(source, number, Capture(IMAGE, 0, 0), live=True)


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
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(box.put_wait(frame("a", 1), 10)))
    writer.start()
    assert [f.frame_id for f in box.take(1, 0)] == [0]
    writer.join(10)
    assert answers == [True]
    assert [f.frame_id for f in box.take(1, 0)] == [1]


def test_closing_wakes_everyone_and_returns_what_waited() -> None:
    box = Mailbox(depth=1)
    box.put_wait(frame("a", 0), 0)
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(box.put_wait(frame("a", 1), 10)))
    writer.start()
    left = box.close()
    writer.join(10)
    assert answers == [False]
    assert [f.frame_id for f in left] == [0]
    late = frame("a", 2)
    assert box.put_latest(late) is late
    assert box.take(1, 1) == []


def test_a_batch_takes_one_of_each_before_a_second_of_any() -> None:
    box = Mailbox(depth=3)
    for number in range(3):
        box.put_wait(frame("a", number), 0)
    box.put_wait(frame("b", 0), 0)
    assert [(f.source, f.frame_id) for f in box.take(3, 0)] == [("a", 0), ("b", 0), ("a", 1)]


@given(
    st.lists(
        st.one_of(st.tuples(st.just("put"), st.sampled_from("abcd")), st.tuples(st.just("take"), st.integers(1, 5)))
    )
)
def test_every_frame_comes_out_once_or_was_replaced(steps: list[tuple[str, object]]) -> None:
    box = Mailbox()
    put: Counter[str] = Counter()
    out: list[tuple[str, int]] = []
    for action, value in steps:
        if action == "put":
            source = str(value)
            replaced = box.put_latest(frame(source, put[source]))
            put[source] += 1
            if replaced is not None:
                out.append((replaced.source, replaced.frame_id))
        else:
            taken = box.take(int(str(value)), 0)
            assert len({f.source for f in taken}) == len(taken)
            out += [(f.source, f.frame_id) for f in taken]
    out += [(f.source, f.frame_id) for f in box.close()]
    assert sorted(out) == sorted((source, number) for source, count in put.items() for number in range(count))


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
    assert len(box.take(4, 30, company_s=0.01)) == 1


def test_with_a_frame_of_every_camera_there_is_nobody_to_wait_for() -> None:
    box = Mailbox()
    box.put_latest(frame("a", 0))
    box.put_latest(frame("b", 0))
    assert len(box.take(16, 0, company_s=60)) == 2
    box.put_latest(frame("a", 1))
    assert box.take(16, 0, company_s=60) == []
