"""The samples that the plots show."""

from __future__ import annotations

import msgspec

from edgeinfer.guard.limits import WEB_SAMPLES
from edgeinfer.messages import DAEMON, MachineVitals, StatusMessage, Vitals
from edgeinfer.web.viewing.history import Columns, History
from tests.web.test_chronicle import status


def ticking() -> tuple[History, list[float]]:
    """A history, and what its clocks say: the monotonic one, and the process's own."""
    now = [0.0, 0.0]
    return History(lambda: now[0], lambda: now[1], lambda: 0), now


def daemon(n: int, stage: str = "infer") -> StatusMessage:
    vitals = Vitals(
        latency_ms={stage: {"p50": float(n), "p95": 2.0, "p99": 3.0}},
        machine=MachineVitals(temperatures_c={"cpu": 50.0 + n}),
    )
    return status(DAEMON, at_ns=n, fps=10.0, dropped_by_reason={"overload": 3 * n}, vitals=vitals)


def columns(*messages: StatusMessage) -> Columns:
    kept, clock = ticking()
    for message in messages:
        kept.write(message, None)
        clock[0] += 1.0
        clock[1] += 0.25
    return kept.columns()


def test_a_sample_is_a_second() -> None:
    found = columns(daemon(1), daemon(2), daemon(3, stage="decode"), status("front"))
    assert found.t_ns == [1001, 1002, 1003]
    assert found.latency_ms == {"infer": [1.0, 2.0, None], "decode": [None, None, 3.0]}
    assert found.dropped == {"overload": [None, 3.0, 3.0]}
    assert found.cpu == [None, 0.25, 0.25]
    assert found.temperature_c == {"cpu": [51.0, 52.0, 53.0]}
    assert found.gpu_load == [None] * 3
    assert all(rss is not None and rss > 1 << 20 for rss in found.rss_bytes)


def test_a_status_for_the_sake_of_news_is_no_sample() -> None:
    kept, clock = ticking()
    kept.write(daemon(1), None)
    clock[0] += 0.1
    kept.write(daemon(2), None)
    assert kept.columns().t_ns == [1001]


def test_the_oldest_sample_is_forgotten() -> None:
    found = columns(*map(daemon, range(WEB_SAMPLES + 3)))
    assert found.t_ns == list(range(1003, WEB_SAMPLES + 1003))


def test_only_what_is_newer_is_given() -> None:
    kept, clock = ticking()
    for n in range(4):
        kept.write(daemon(n), None)
        clock[0] += 1.0
    assert kept.columns(1001).t_ns == [1002, 1003]
    lists = [value for value in msgspec.structs.asdict(kept.columns(1003)).values() if isinstance(value, list)]
    assert all(value == [] for value in lists)


def test_where_the_wall_clock_was_set_samples_keep_their_distances() -> None:
    kept, clock = ticking()

    def measured(second: int, wall_ns: int) -> None:
        made = status(DAEMON, at_ns=second * 10**9)
        kept.write(msgspec.structs.replace(made, t_publish_ns=wall_ns), None)
        clock[0] += 1.0

    for second in range(4):
        measured(second, 10**18 + second * 10**9)
    asked = kept.columns().t_ns[-1]
    measured(4, now := 10**18 - 3600 * 10**9)
    times = kept.columns().t_ns
    assert times == [now - (4 - second) * 10**9 for second in range(5)]
    assert kept.columns(asked).t_ns == times, "who asks with a time that is still to come gets everything"
    assert kept.columns(times[3]).t_ns == times[4:]


def test_what_was_measured_before_a_sleep_stays_before_it() -> None:
    slept_ns, clock = [0], [0.0]
    kept = History(lambda: clock[0], lambda: 0.0, lambda: slept_ns[0])
    for second in range(4):
        if second == 2:
            slept_ns[0] = 3600 * 10**9
        made = status(DAEMON, at_ns=second * 10**9)
        kept.write(msgspec.structs.replace(made, t_publish_ns=10**18 + second * 10**9 + slept_ns[0]), None)
        clock[0] += 1.0
    assert [(t - 10**18) // 10**9 for t in kept.columns().t_ns] == [0, 1, 3602, 3603]
