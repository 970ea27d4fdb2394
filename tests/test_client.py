"""The subscriber's side, when who answers is no daemon of ours: bounded in time and memory, and not lied to."""

from __future__ import annotations

import math
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zmq
from msgspec import structs

from edgeinfer import client
from edgeinfer.client import OTHERS, Subscriber
from edgeinfer.commands.listen import COMPLAINT_S, Complaints
from edgeinfer.guard.limits import MAX_DETECTIONS, MAX_EVENTS, MAX_TEXT
from edgeinfer.messages import Detection, DetectionsMessage, Message, Reason, StatusMessage, encode, topic
from edgeinfer.transport.acceptance import accept
from tests.test_messages import example
from tests.test_zmq import of

GOOD = example("detections")
assert isinstance(GOOD, DetectionsMessage)


class Flood:
    """A connection on which there is always a message, and every look at it takes a moment of the test's clock."""

    refused = ""

    def __init__(self, make: Callable[[int], bytes], step_s: float = 0.001) -> None:
        self.now = 0.0
        self.reads = 0
        self._make, self._step_s = make, step_s

    def poll(self, timeout_ms: int | None) -> bool:
        return True

    def read(self, end: float | None = None) -> list[bytes]:
        self.now += self._step_s
        self.reads += 1
        return [b"", self._make(self.reads)]

    def close(self) -> None: ...


def subscribe(monkeypatch: pytest.MonkeyPatch, flood: Flood, **options: Any) -> Subscriber:
    monkeypatch.setattr(client, "Connection", lambda *_: flood)
    monkeypatch.setattr(time, "monotonic", lambda: flood.now)
    return Subscriber("x", **options)


@pytest.mark.parametrize("latest", [False, True])
def test_a_flood_of_rubbish_does_not_hold_the_caller_beyond_its_time_out(
    monkeypatch: pytest.MonkeyPatch, latest: bool
) -> None:
    flood = Flood(lambda _: b"rubbish")
    subscriber = subscribe(monkeypatch, flood, latest=latest)
    assert subscriber.receive(1.0) is None
    assert flood.now == pytest.approx(1.0, abs=0.01)
    assert subscriber.malformed == flood.reads


def test_a_flood_is_looked_through_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast messages come, `latest` gives one."""
    flood = Flood(lambda number: encode(of("a", number)))
    subscriber = subscribe(monkeypatch, flood, latest=True)
    assert subscriber.receive(1.0) is not None
    assert flood.now <= 2 * client.DRAIN_S
    quick = Flood(lambda number: encode(of("a", number)), step_s=0.0)
    subscriber = subscribe(monkeypatch, quick, latest=True)
    monkeypatch.setattr(client, "MAX_DRAINED", 50)
    for call in (1, 2):
        message = subscriber.receive()
        assert isinstance(message, DetectionsMessage)
        assert message.seq == quick.reads == 51 * call


def test_invented_sources_do_not_grow_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_SUBSCRIBED_SOURCES", 10)
    flood = Flood(lambda number: encode(of(f"s{number // 2}", number % 2 * 5)))
    subscriber = subscribe(monkeypatch, flood)
    for _ in range(1001):
        assert subscriber.receive(1.0) is not None
    assert len(subscriber._next_seq) == 10
    assert (len(subscriber.lost), subscriber.lost.total()) == (11, 500 * 4)
    assert subscriber.lost[OTHERS] == 490 * 4


def test_invented_sources_do_not_grow_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_SUBSCRIBED_SOURCES", 10)
    flood = Flood(lambda number: encode(of(f"s{number}", 0)), step_s=0.0001)
    subscriber = subscribe(monkeypatch, flood, latest=True)
    for _ in range(5):
        assert subscriber.receive(1.0) is not None
        assert len(subscriber._pending) == 9
    assert len(subscriber.skipped) == 11
    assert subscriber.skipped.total() + 9 + 5 == flood.reads


def test_the_source_heard_of_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_SUBSCRIBED_SOURCES", 2)
    sent = [of(*what) for what in (("a", 0), ("b", 0), ("a", 1), ("c", 0), ("a", 5), ("b", 9))]
    subscriber = subscribe(monkeypatch, Flood(lambda number: encode(sent[number - 1])))
    for _ in sent:
        subscriber.receive(1.0)
    assert subscriber.lost == {"a": 3}, "b was forgotten, and nothing is known of what it lost"


def test_what_was_not_asked_for_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [of("b", 0), structs.replace(example("status"), source="a"), of("a", 0)]
    flood = Flood(lambda number: encode(sent[number - 1]))
    subscriber = subscribe(monkeypatch, flood, sources=("a",))
    assert subscriber.receive(1.0) == of("a", 0)
    assert subscriber.malformed == 2


def boxed(*box: float) -> Message:
    return structs.replace(GOOD, detections=[Detection(0, "x", 0.5, box)])  # type: ignore[arg-type] # (of four)


STATUS = example("status")
assert isinstance(STATUS, StatusMessage)
UNTRUE: list[Message] = [
    *(boxed(value, 0, 10, 10) for value in (math.nan, math.inf, -math.inf, -5.0, 11.0, 1e300)),
    *(boxed(0, 0, 10, value) for value in (math.nan, math.inf, -1.0, 722.0)),
    boxed(0, 0, 1282, 1),
    structs.replace(GOOD, width=1 << 20, height=1 << 20),
    structs.replace(GOOD, timing_ms=structs.replace(GOOD.timing_ms, total=math.inf)),
    structs.replace(GOOD, detections=[Detection(0, "\x1b[2J", 0.5, (0, 0, 1, 1))]),
    structs.replace(GOOD, detections=[Detection(0, "a\nb", 0.5, (0, 0, 1, 1))]),
    structs.replace(GOOD, detections=[Detection(0, "a\x9b", 0.5, (0, 0, 1, 1))]),
    structs.replace(GOOD, detections=[Detection(0, "x" * (MAX_TEXT + 1), 0.5, (0, 0, 1, 1))]),
    structs.replace(GOOD, detections=[Detection(0, "x", math.nan, (0, 0, 1, 1))]),
    structs.replace(GOOD, detections=[Detection(0, "x", 1.01, (0, 0, 1, 1))]),
    structs.replace(GOOD, detections=[Detection(0, "x", 0.5, (0, 0, 1, 1), keypoints=[(math.nan, 0, 0)])]),
    *(structs.replace(GOOD, source=name) for name in ("", "a/b", "../x", "front\n", "x" * 65, "_other")),
    structs.replace(STATUS, fps=math.nan),
    structs.replace(STATUS, reason=Reason("a", "b\rc")),
    structs.replace(STATUS, dropped_by_reason={"x\0": 1}),
]


@pytest.mark.parametrize("message", UNTRUE, ids=range(len(UNTRUE)))
def test_what_can_not_be_true_is_not_handed_over(message: Message) -> None:
    with pytest.raises(msgspec.MsgspecError):
        accept(encode(message, "msgpack"))


@pytest.mark.parametrize("number", [1 << 63, 10**30, -(10**30)])
def test_a_number_of_more_than_64_bits_is_not_handed_over(number: int) -> None:
    payload = re.sub(rb'"t_publish_ns":\d+', b'"t_publish_ns":%d' % number, encode(GOOD))
    with pytest.raises(msgspec.MsgspecError):
        accept(payload)


def test_a_scene_with_too_many_objects_is_not_handed_over() -> None:
    one = Detection(0, "", 0.5, (0, 0, 1, 1))
    assert accept(encode(structs.replace(GOOD, detections=[one] * MAX_DETECTIONS)))
    with pytest.raises(msgspec.MsgspecError, match="10001 objects"):
        accept(encode(structs.replace(GOOD, detections=[one] * (MAX_DETECTIONS + 1))))


BOMBS = {
    "nested": encode(STATUS)[:-1] + b',"x":' + b"[" * 400_000,
    "digits": encode(GOOD).replace(b'"seq":0', b'"seq":' + b"1" * 900_000),
    "array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff\xa1a\x01",
    "text of 4 GB": b"\x81\xa4kind\xdb\xff\xff\xff\xff",
    "larger than allowed": encode(GOOD).ljust((1 << 20) + 1),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_swells_is_refused(name: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        accept(BOMBS[name])


@pytest.mark.parametrize("kind", ["detections", "status", "info"])
def test_what_a_daemon_says_is_accepted(kind: str) -> None:
    for encoding in ("json", "msgpack"):
        assert accept(encode(example(kind), encoding)) == example(kind)
    assert accept(encode(boxed(0, 0, 1280, 720))) == boxed(0, 0, 1280, 720), "to the very edge"


@pytest.mark.slow
def test_a_message_of_a_million_parts_takes_no_longer_than_asked(ipc: str) -> None:
    """Its rest is thrown away bit by bit: by calls that have no time left too."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as peer, Subscriber(ipc) as subscriber:
        peer.setsockopt(zmq.LINGER, 0)
        peer.bind(ipc)
        assert peer.poll(30_000), "a subscription"
        for _ in range(2):
            peer.send_multipart([topic("detections"), *[b"x"] * 20_000])
        peer.send_multipart([topic("detections"), encode(GOOD)])
        end, calls = time.monotonic() + 30, 0
        while subscriber.receive(0.0 if calls < 5 else 0.05) is None:
            calls += 1
            assert time.monotonic() < end
        assert subscriber.malformed == 2


def test_a_long_message_is_left_where_the_time_is_up(ipc: str) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as peer, Subscriber(ipc) as subscriber:
        peer.setsockopt(zmq.LINGER, 0)
        peer.bind(ipc)
        assert peer.poll(30_000), "a subscription"
        peer.send_multipart([topic("detections"), *[b"x"] * 100])
        peer.send_multipart([topic("detections"), encode(GOOD)])
        link = subscriber._link
        assert link.poll(30_000)
        past = time.monotonic() - 1
        assert link.read(past) == [topic("detections"), b"x", b"x"]
        assert link.read(past) is None
        assert (link.read() or (link.poll(30_000) and link.read())) == [topic("detections"), encode(GOOD)]


def test_a_storm_of_events_is_looked_at_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that takes the connection and drops it, again and again."""

    class Storm:
        looks = 0

        def poll(self, timeout_ms: int) -> bool:
            return True

        def recv_multipart(self) -> list[bytes]:
            self.looks += 1
            return [struct.pack("=hi", zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, 0), b"x"]

    storm = Storm()
    with Subscriber("ipc://@nobody") as subscriber, monkeypatch.context() as patched:
        patched.setattr(subscriber._link, "_monitor", storm)
        assert subscriber.receive(0) is None
    assert 0 < storm.looks <= 2 * MAX_EVENTS


def test_listen_complains_once_a_second_and_counts_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    complaints = Complaints()
    for second in range(3):
        for number in range(1000):
            complaints.add(f"{second}.{number}")
        now[0] += COMPLAINT_S
    complaints.close()
    complaints.close()
    first = "edgeinfer: not a message of schema v1:"
    more = "edgeinfer: … and 999 more"
    assert capsys.readouterr().err.splitlines() == [line for s in range(3) for line in (f"{first} {s}.0", more)]
