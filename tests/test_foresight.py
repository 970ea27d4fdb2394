"""The batch behind the ones in flight is taken when it is needed, and not before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeinfer.flow.foresight import LAST, MARGIN_NS, WORTHWHILE_NS, Foresight
from edgeinfer.flow.network import Flight, Passage
from edgeinfer.types import Capture, Frame

MS = 1_000_000
NETWORK: Any = None


def flight(loaded_ms: float, preprocess_ms: float = 1, live: bool = True) -> Flight:
    frame = Frame("a", 0, Capture(np.zeros((4, 4, 3), np.uint8), 0, 0), live)
    return Flight(NETWORK, [frame], [], int((loaded_ms - preprocess_ms) * MS), int(loaded_ms * MS))


class Scene:
    def __init__(self) -> None:
        self.now_ms = 0.0
        self.foresight = Foresight(lambda: int(self.now_ms * MS))

    def came_back(self, at_ms: float, infer_ms: float, preprocess_ms: float = 1) -> None:
        passage = Passage(int(at_ms * MS), int(at_ms * MS), infer_ms)
        self.foresight.learn(flight(at_ms - infer_ms, preprocess_ms), passage)

    def early_ms(self, *flights: Flight, slots: int = 2) -> float:
        return round(self.foresight.early_s(flights, slots) * 1e3, 3)


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.came_back(100, infer_ms=40)
    scene.now_ms = 101
    return scene


def test_live_frames_are_taken_in_time_to_be_ready_when_the_batch_before_them_ends(scene: Scene) -> None:
    due_ms = 101 + 40 - 1 - MARGIN_NS / MS
    assert scene.early_ms(flight(101)) == due_ms - 101
    scene.now_ms = due_ms
    assert scene.early_ms(flight(101)) == 0
    scene.now_ms = 500
    assert scene.early_ms(flight(101)) == 0, "it takes longer than ever before"


def test_a_batch_begins_when_the_one_before_it_has_ended(scene: Scene) -> None:
    assert scene.early_ms(flight(80)) == 100 + 40 - 1 - MARGIN_NS / MS - 101


def test_the_quickest_of_the_last_batches_counts_and_the_longest_preprocessing(scene: Scene) -> None:
    scene.came_back(200, infer_ms=20, preprocess_ms=5)
    scene.came_back(300, infer_ms=90)
    scene.now_ms = 301
    assert scene.early_ms(flight(301)) == 20 - 5 - MARGIN_NS / MS
    for _ in range(LAST):
        scene.came_back(300, infer_ms=30)
    assert scene.early_ms(flight(301)) == 30 - 1 - MARGIN_NS / MS


def test_frames_are_taken_at_once_where_waiting_wins_nothing(scene: Scene) -> None:
    assert scene.early_ms() == 0, "nothing is in flight"
    assert scene.early_ms(flight(101), slots=3) == 0, "another slot would be left"
    assert scene.early_ms(flight(101, live=False)) == 0, "a file's frames don't grow old"
    scene.came_back(100, infer_ms=WORTHWHILE_NS / MS - 0.1)
    assert scene.early_ms(flight(101)) == 0, "the backend is quick"


def test_another_backend_is_learnt_anew(scene: Scene) -> None:
    scene.foresight.forget()
    assert scene.early_ms(flight(101)) == 0
