"""Percentiles are those of the last frames, and the books of a source always balance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.statistics import WINDOW, Statistics
from edgeinfer.telemetry.snapshot import total
from edgeinfer.types import Timing


def test_percentiles_forget_what_is_old() -> None:
    statistics = Statistics()
    assert statistics.percentiles() == {}
    for number in range(WINDOW + 500):
        statistics.add(Timing(number, 1, 2, 3), 2 * number)
    expected = np.percentile(np.arange(500, WINDOW + 500), (50, 95, 99))
    found = statistics.percentiles()
    assert list(found["queue"].values()) == pytest.approx(expected.tolist(), rel=1e-4)
    assert list(found["total"].values()) == pytest.approx((2 * expected).tolist(), rel=1e-4)
    assert found["infer"] == {"p50": 2, "p95": 2, "p99": 2}


@given(st.lists(st.sampled_from(["capture", "infer", "overload", "max_fps", "shutdown"])))
def test_the_books_balance(steps: list[str]) -> None:
    now = [0]
    ledger = Ledger(lambda: now[0])
    for step in steps:
        now[0] += 10_000_000
        in_flight = ledger.snapshot().in_flight
        if step == "capture":
            ledger.capture()
        elif in_flight and step == "infer":
            ledger.infer()
        elif in_flight:
            ledger.drop(step)  # type: ignore[arg-type]
        books = total("running", None, [ledger.snapshot(), ledger.snapshot()])
        assert books.captured == books.inferred + sum(books.dropped.values()) + books.in_flight
        assert books.in_flight >= 0


def test_fps_is_that_of_the_last_seconds() -> None:
    now = [0]
    ledger = Ledger(lambda: now[0])
    for _ in range(300):
        now[0] += 40_000_000
        ledger.capture()
        ledger.infer()
    assert ledger.snapshot().fps == pytest.approx(25)
    now[0] += 10_000_000_000
    assert ledger.snapshot().fps == 0
