"""Publishing and subscribing over real sockets."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from edgeinfer.client import Subscriber
from edgeinfer.errors import ConfigError, TemporaryError
from edgeinfer.messages import DetectionsMessage, InfoMessage, Message, StatusMessage, topic
from edgeinfer.sinks.zmq import Options, ZmqPublisher
from edgeinfer.sinks.zmq import open as open_publisher
from tests.test_messages import example

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def publisher(ipc: str) -> Iterator[ZmqPublisher]:
    sink = open_publisher(Options(bind=ipc, high_water_mark=10))
    yield sink
    sink.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.005)


def serve_until(publisher: ZmqPublisher, condition: Callable[[], bool], what: str) -> None:
    def served() -> bool:
        publisher.service()
        return condition()

    wait_for(served, what)


def test_a_late_subscriber_gets_info_and_status_at_once(publisher: ZmqPublisher) -> None:
    for kind in ("info", "status", "detections"):
        publisher.write(example(kind), None)
    for _ in range(2):  # the second subscriber subscribes to what the first one has already
        with Subscriber(publisher.endpoint, kinds=("info", "status", "detections")) as subscriber:
            kinds = [type(first_message(publisher, subscriber)) for _ in range(2)]
            assert kinds == [InfoMessage, StatusMessage]


def first_message(publisher: ZmqPublisher, subscriber: Subscriber) -> Message:
    got: list[Message] = []

    def receive() -> bool:
        message = subscriber.receive(0)
        got.extend([message] if message else [])
        return bool(got)

    serve_until(publisher, receive, "a message")
    return got[0]


def test_gaps_and_sessions_are_seen(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        publisher_ready(publisher, subscriber)
        for number, session in ((5, "s"), (6, "s"), (9, "s"), (0, "t"), (1, "t")):
            publisher.write(example("detections", number, session), None)
        got = [subscriber.receive(10) for _ in range(5)]
        assert [m.seq for m in got if isinstance(m, DetectionsMessage)] == [5, 6, 9, 0, 1]
        assert subscriber.lost == {"front": 2}


def test_latest_skips_to_the_newest(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.endpoint, latest=True) as subscriber:
        publisher_ready(publisher, subscriber)
        for number in range(8):
            publisher.write(example("detections", number), None)
        time.sleep(0.3)
        newest = subscriber.receive(10)
        assert isinstance(newest, DetectionsMessage)
        assert newest.seq == 7
        assert subscriber.skipped == {"front": 7}
        assert not subscriber.lost


def test_what_is_no_message_is_counted_and_passed_over(ipc: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as peer, Subscriber(ipc) as subscriber:
        peer.bind(ipc)
        time.sleep(0.3)
        for parts in ([topic("detections")], [topic("detections"), b"\xff\xfe"], [topic("detections"), b"{}"]):
            peer.send_multipart(parts)
        assert subscriber.receive(1) is None
        assert subscriber.malformed == 3


def publisher_ready(publisher: ZmqPublisher, subscriber: Subscriber) -> None:
    """Until the subscription has arrived: the latched status is the sign."""
    with Subscriber(publisher.endpoint, kinds=("status",)) as probe:
        publisher.write(example("status"), None)
        serve_until(publisher, lambda: probe.receive(0) is not None, "the subscription")
    time.sleep(0.1)


def test_a_stopped_subscriber_costs_a_bounded_number_of_messages(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.endpoint, high_water_mark=5) as lazy, Subscriber(publisher.endpoint) as eager:
        publisher_ready(publisher, lazy)
        total, seen = 20_000, 0
        for number in range(total):
            publisher.write(example("detections", number), None)
            while eager.receive(0) is not None:
                seen += 1
        wait_for(lambda: eager.receive(0) is None, "the eager one to finish")
        held = 0
        while lazy.receive(0.2) is not None:
            held += 1
        assert held < total / 4
        assert seen > held


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TemporaryError, match="in use by another program"):
            open_publisher(Options(bind=endpoint))


def test_an_ipc_path_has_one_owner_and_is_private(publisher: ZmqPublisher, ipc: str) -> None:
    path = Path(ipc.removeprefix("ipc://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with pytest.raises(TemporaryError, match=f"already running as PID {os.getpid()}"):
        open_publisher(Options(bind=ipc))


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("tcp://0.0.0.0:5555", "other machines"),
        ("tcp://*:5555", "other machines"),
        ("tcp://[::]:5555", "other machines"),
        ("tcp://example.org:5555", "other machines"),
        ("tcp://127.0.0.1", "not an endpoint"),
        ("tcp://127.0.0.1:99999", "not an endpoint"),
        ("5555", "not an endpoint"),
        ("", "not an endpoint"),
        ("ipc:///" + "x" * 120, "longer than 107 bytes"),
        ("ipc:///no/such/folder/s", "No such file"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_publisher(Options(bind=endpoint))


def test_garbage_on_the_port_and_a_flood_of_subscriptions() -> None:
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    port = int(sink.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(os.urandom(100_000))
    with zmq.Context() as context, context.socket(zmq.SUB) as greedy:
        greedy.connect(sink.endpoint)
        for number in range(3000):
            greedy.setsockopt(zmq.SUBSCRIBE, b"edgeinfer/1/status/" + str(number).encode())
        greedy.setsockopt(zmq.SUBSCRIBE, b"x" * 5000)  # beyond what the publisher accepts
        with Subscriber(sink.endpoint, kinds=("info",)) as subscriber:
            sink.write(example("info"), None)
            serve_until(sink, lambda: subscriber.receive(0) is not None, "info beside the flood")
    sink.close()


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_daemon_end_to_end(daemon_process: Start, ipc: str, encoding: str) -> None:
    process = daemon_process("run", "--source", "cam=demo:", "--bind", ipc, "--set", f"publish.format={encoding}")
    with Subscriber(ipc, kinds=("info", "status", "detections"), timeout_s=30) as subscriber:
        kinds = set()
        for message in subscriber:
            kinds.add(type(message))
            if isinstance(message, StatusMessage):
                assert message.captured == message.inferred + message.dropped + message.in_flight
            if isinstance(message, DetectionsMessage):
                assert message.t_capture_mono_ns < message.t_publish_mono_ns
                assert message.backend == "onnxruntime-cpu"
            if len(kinds) == 3:
                break
    assert kinds == {InfoMessage, StatusMessage, DetectionsMessage}
    process.terminate()
    assert process.wait(10) == 0


def test_a_subscriber_that_is_waiting_misses_nothing(daemon_process: Start, clip: Path, ipc: str) -> None:
    got: list[DetectionsMessage] = []
    with Subscriber(ipc, timeout_s=30) as subscriber:

        def consume() -> None:
            for message in subscriber:
                assert isinstance(message, DetectionsMessage)
                got.append(message)
                if message.seq == 59:
                    return

        thread = threading.Thread(target=consume)
        thread.start()
        process = daemon_process(
            "run", "--source", f"clip={clip}", "--bind", ipc, "--set", "publish.high_water_mark=1000"
        )
        thread.join(60)
    assert [message.seq for message in got] == list(range(60))
    assert process.wait(10) == 0


def test_listen_shows_what_is_published(daemon_process: Start, ipc: str) -> None:
    daemon_process("run", "--source", "cam=demo:", "--bind", ipc)
    lines = daemon_process("listen", ipc, "--jsonl", "--topic", "edgeinfer/1/detections/", "--count", "3")
    out, _ = lines.communicate(timeout=30)
    messages = [json.loads(line) for line in out.splitlines()]
    assert [m["seq"] for m in messages] == list(range(messages[0]["seq"], messages[0]["seq"] + 3))
    people = daemon_process("listen", ipc, "--count", "4")
    out, _ = people.communicate(timeout=30)
    assert "cam is running" in out
    assert "edgeinfer 0." in out
