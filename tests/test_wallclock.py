"""Jumps of the wall clock, told from its drift."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.flow.wallclock import STEP_NS, WallClock


@given(st.integers(-(10**18), 10**18))
def test_a_jump_is_told_once_and_drift_is_not(jump_ns: int) -> None:
    now = {"wall": 10**18, "mono": 5}
    clock = WallClock(lambda: now["wall"], lambda: now["mono"])
    for _ in range(10):
        now["mono"] += 10**9
        now["wall"] += 10**9 + 500_000  # 500 ppm
        assert clock.look() is None
    now["wall"] += jump_ns
    told = clock.look()
    assert told == (jump_ns if abs(jump_ns) >= STEP_NS else None)
    assert clock.look() is None
    assert clock.step_ns == told


def test_what_ntp_does_by_and_by_is_no_jump_and_half_a_second_is() -> None:
    now = {"wall": 10**18, "mono": 0}
    clock = WallClock(lambda: now["wall"], lambda: now["mono"])
    for step_ns, told in ((400_000_000, None), (-400_000_000, None), (500_000_000, 500_000_000)):
        now["wall"] += step_ns
        assert clock.look() == told
