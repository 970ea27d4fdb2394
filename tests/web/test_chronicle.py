"""What has happened, made of status messages."""

from __future__ import annotations

from typing import Any

from edgeinfer.guard.limits import WEB_EVENTS
from edgeinfer.messages import DAEMON, LastCrash, Reason, StatusMessage
from edgeinfer.web.viewing.chronicle import DROPS_PERIOD_NS, Chronicle


def status(source: str = "front", at_ns: int = 0, **fields: Any) -> StatusMessage:
    given = {
        "state": "running",
        "reason": None,
        "captured": 0,
        "inferred": 0,
        "in_flight": 0,
        "dropped": 0,
        "dropped_by_reason": {},
        "fps": 0.0,
        **fields,
    }
    return StatusMessage(source=source, session="s", t_publish_ns=1000 + at_ns, t_publish_mono_ns=at_ns, **given)


def told(*statuses: StatusMessage) -> list[tuple[str, str, str, str]]:
    chronicle = Chronicle()
    for each in statuses:
        chronicle.write(each, None)
    return [(event.kind, event.source, event.code, event.text) for event in chronicle.since(0)]


def test_a_state_is_told_when_it_changes_and_not_again() -> None:
    gone = status(state="stalled", reason=Reason("timeout", "no frame for 2.5 s"))
    assert told(status(), status(), gone, gone, status()) == [
        ("state", "front", "running", "running"),
        ("state", "front", "timeout", "stalled: no frame for 2.5 s"),
        ("state", "front", "running", "running"),
    ]


def test_frames_that_are_dropped_all_the_time_are_summed_up() -> None:
    times = [DROPS_PERIOD_NS * n // 4 for n in range(9)]
    statuses = [status(at_ns=at, dropped_by_reason={"overload": n + 1, "max_fps": n}) for n, at in enumerate(times)]
    assert [line[3] for line in told(*statuses) if line[0] == "drops"] == [
        "1 frame dropped: overload",
        "4 frames dropped: overload",
        "4 frames dropped: overload",
    ]


def test_what_the_daemon_says_has_a_kind_each() -> None:
    building = [status(DAEMON, reason=Reason("engine-building", f"{n} %")) for n in (1, 2)]
    assert told(
        *building,
        status(DAEMON, reason=Reason("engine-ready", "ready")),
        status(DAEMON, reason=Reason("reload-failed", "no such camera")),
        status(DAEMON, reason=Reason("reload-failed", "no such model")),
        status(DAEMON, clock_step_s=-3600.0),
        status(DAEMON, clock_step_s=-3600.0, state="ended"),
    ) == [
        ("state", DAEMON, "running", "the daemon is running"),
        ("engine", DAEMON, "engine-building", "1 %"),
        ("engine", DAEMON, "engine-ready", "ready"),
        ("reload", DAEMON, "reload-failed", "no such camera"),
        ("reload", DAEMON, "reload-failed", "no such model"),
        ("clock", DAEMON, "clock", "the wall clock was set by -3600.0 s"),
        ("state", DAEMON, "ended", "the daemon is ended"),
    ]


def test_an_earlier_crash_is_told_once() -> None:
    crash = LastCrash(code="stalled", text="inference stood still", stage="inference", version="1", t_ns=1)
    assert [line for line in told(*[status(DAEMON, last_crash=crash)] * 2) if line[0] == "crash"] == [
        ("crash", DAEMON, "stalled", "an earlier run ended: inference stood still")
    ]


def test_the_oldest_event_is_forgotten() -> None:
    chronicle = Chronicle()
    for n in range(WEB_EVENTS + 5):
        chronicle.write(status(state="running" if n % 2 else "stalled"), None)
    assert [event.id for event in chronicle.since(0)] == list(range(6, WEB_EVENTS + 6))
    assert [event.id for event in chronicle.since(WEB_EVENTS + 3)] == [WEB_EVENTS + 4, WEB_EVENTS + 5]


def test_an_id_of_an_earlier_run_gives_everything() -> None:
    chronicle = Chronicle()
    chronicle.write(status(), None)
    assert len(chronicle.since(700)) == 1


def test_who_listens_hears_of_news_until_it_has_enough() -> None:
    chronicle, heard = Chronicle(), list[int]()
    stop = chronicle.listen(lambda: heard.append(1))
    for state in ("running", "running", "stalled"):
        chronicle.write(status(state=state), None)
    stop()
    chronicle.write(status(state="failed"), None)
    assert len(heard) == 2


def test_a_source_that_is_gone_is_forgotten() -> None:
    chronicle = Chronicle()
    chronicle.write(status(), None)
    chronicle.forget("front")
    chronicle.write(status(), None)
    assert len(chronicle.since(0)) == 2
