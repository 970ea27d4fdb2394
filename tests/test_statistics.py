"""Percentiles are those of the last frames, and the books of a source always balance."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.statistics import BUCKETS_MS, WINDOW, Statistics
from edgeinfer.messages import Reason
from edgeinfer.telemetry.snapshot import SourceSnapshot, total
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


def test_only_the_last_frames_count_where_that_is_asked_for() -> None:
    statistics = Statistics()
    for number in range(WINDOW + 30):
        statistics.add(Timing(number, 0, 0, 0), 0)
    assert statistics.percentiles(last=1)["queue"] == dict.fromkeys(("p50", "p95", "p99"), WINDOW + 29)
    assert statistics.percentiles(last=11)["queue"]["p50"] == WINDOW + 24
    assert statistics.percentiles(last=10 * WINDOW) == statistics.percentiles()


def test_every_stage_has_a_column_of_its_own() -> None:
    statistics = Statistics()
    statistics.add(Timing(queue=1, preprocess=2, infer=3, decode=4, receive=6, wait=7), 5, publish_ms=8)
    entered = {"queue": 1, "preprocess": 2, "infer": 3, "decode": 4, "total": 5, "receive": 6, "wait": 7, "publish": 8}
    assert {stage: values["p50"] for stage, values in statistics.percentiles().items()} == entered
    assert {stage: histogram.sum_ms for stage, histogram in statistics.stages().items()} == entered


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([*BUCKETS_MS, 0.0, 0.25, 3.0, 70.0, 9000.0]))),
    st.sampled_from([1, 700]),
)
def test_histograms_count_every_frame_since_the_start(times: list[tuple[str, float]], repeat: int) -> None:
    """Also those that have left the ring; a time on a bucket's edge belongs to that bucket."""
    statistics = Statistics()
    for number, (source, total_ms) in enumerate(times * repeat):
        statistics.add(Timing(total_ms / 2, 0, 0, 0), total_ms, source)
        if number % 997 == 0:
            statistics.stages()
    for source in {source for source, _ in times}:
        own = [total_ms for name, total_ms in times if name == source]
        found = statistics.sources()[source]
        expected = [sum(ms <= edge for ms in own) * repeat for edge in BUCKETS_MS]
        assert found.counts == (*expected, len(own) * repeat)
        assert found.sum_ms == pytest.approx(sum(own) * repeat)
    assert statistics.stages()["total"].counts[-1] == len(times) * repeat
    assert statistics.stages()["queue"].sum_ms == pytest.approx(sum(ms for _, ms in times) * repeat / 2)
    assert set(statistics.sources()) == {source for source, _ in times}


def test_histograms_lose_nothing_however_seldom_they_are_looked_at() -> None:
    statistics = Statistics()
    for number in range(WINDOW + 2500):
        statistics.add(Timing(0, 0, 0, 0), 3.0 if number < 2500 else 70.0, "a")
    for found in (statistics.sources()["a"], statistics.stages()["total"]):
        assert found.counts[BUCKETS_MS.index(5.0)] == 2500, "those that have left the ring"
        assert found.counts[-1] == WINDOW + 2500


def test_the_whole_is_the_sum_of_its_sources() -> None:
    books = [
        SourceSnapshot("running", None, 10, 5, 2, {"overload": 3}, 25.0, 1, 4),
        SourceSnapshot("failed", Reason("gone", "x"), 20, 12, 1, {"overload": 4, "stale": 3}, 5.0, 2, 8),
    ]
    reason = Reason("oom", "y")
    assert total("running", reason, books) == SourceSnapshot(
        "running", reason, 30, 17, 3, {"overload": 7, "stale": 3}, 30.0, 3, 12
    )


STEPS = st.sampled_from(["capture", "infer", "overload", "max_fps", "shutdown", "stalled", "running", "open again"])


@given(st.lists(STEPS), st.lists(STEPS))
def test_the_books_say_what_was_entered(first: list[str], second: list[str]) -> None:
    books = [entered(steps) for steps in (first, second)]
    whole = total("running", None, books)
    for name in ("captured", "inferred", "in_flight", "stalls", "reconnects", "fps"):
        assert getattr(whole, name) == sum(getattr(book, name) for book in books)
    assert sum(whole.dropped.values()) == sum(sum(book.dropped.values()) for book in books)
    assert whole.captured == whole.inferred + sum(whole.dropped.values()) + whole.in_flight


def entered(steps: list[str]) -> SourceSnapshot:
    """The books after some steps, compared with a plain count of them at every one."""
    ledger, now, state = Ledger(lambda: now[0]), [0], "starting"
    counts: Counter[str] = Counter()
    for step in steps:
        now[0] += 10_000_000
        flying = counts["capture"] - sum(counts[name] for name in ("infer", "overload", "max_fps", "shutdown"))
        if step == "capture":
            assert ledger.capture() == counts["capture"]
        elif step == "open again":
            ledger.open_again()
        elif step in ("stalled", "running"):
            counts["stalls"] += step == "stalled" != state
            state = step
            ledger.set_state(step)  # type: ignore[arg-type]
        elif not flying:
            continue
        elif step == "infer":
            dropped = counts["overload"] + counts["max_fps"] + counts["shutdown"]
            assert ledger.infer() == (counts["infer"], dropped)
        else:
            ledger.drop(step)  # type: ignore[arg-type]
        counts[step] += 1
        book = ledger.snapshot()
        assert (book.captured, book.inferred, book.state) == (counts["capture"], counts["infer"], state)
        assert book.dropped == {k: counts[k] for k in ("overload", "max_fps", "shutdown") if counts[k]}
        assert (book.stalls, book.reconnects) == (counts["stalls"], counts["open again"])
        assert book.in_flight == book.captured - book.inferred - sum(book.dropped.values())
        assert (ledger.inferred, ledger.accepted) == (book.inferred, book.inferred + book.in_flight)
    return ledger.snapshot()


def test_a_state_keeps_its_reason_until_the_next() -> None:
    ledger, reason = Ledger(lambda: 0), Reason("timeout", "no frame for 3 s")
    assert ledger.state == ("starting", None)
    ledger.set_state("stalled", reason)
    assert ledger.state == (ledger.snapshot().state, ledger.snapshot().reason) == ("stalled", reason)
    ledger.set_state("running")
    assert ledger.state == ("running", None)


@pytest.mark.parametrize("fps", [2, 25, 1000])
def test_fps_is_that_of_the_last_three_seconds(fps: int) -> None:
    now = [0]
    ledger = Ledger(lambda: now[0])
    assert ledger.snapshot().fps == 0
    for _ in range(10 * fps):
        now[0] += 1_000_000_000 // fps
        ledger.capture()
        ledger.infer()
    assert ledger.snapshot().fps == pytest.approx(fps)
    now[0] += 3_000_000_000 - 1_000_000_000 // fps
    assert ledger.snapshot().fps == pytest.approx(fps), "two frames are left"
    now[0] += 1
    assert ledger.snapshot().fps == 0, "one says nothing of a rate"


@given(st.lists(st.integers(3, 60), max_size=900))
def test_fps_of_an_uneven_source_is_its_mean_rate(gaps_ms: list[int]) -> None:
    now, times = [0], list[int]()
    ledger = Ledger(lambda: now[0])
    for gap in gaps_ms:
        now[0] += gap * 1_000_000
        times.append(now[0])
        ledger.infer()
    recent = [at for at in times if at >= now[0] - 3_000_000_000]
    expected = (len(recent) - 1) * 1e9 / (recent[-1] - recent[0]) if len(recent) > 1 else 0
    assert ledger.snapshot().fps == pytest.approx(expected)


def test_fps_of_a_burst_counts_all_its_frames() -> None:
    now = [0]
    ledger = Ledger(lambda: now[0])
    for gap_ms in [2] * 500 + [20] * 50:
        now[0] += gap_ms * 1_000_000
        ledger.infer()
    assert ledger.snapshot().fps == pytest.approx(549 / 1.998)
