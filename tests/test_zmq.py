"""Publishing and subscribing over real sockets."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import zmq
from msgspec import structs

from edgeinfer import client
from edgeinfer.client import Subscriber
from edgeinfer.errors import ConfigError, TemporaryError, UsageError
from edgeinfer.guard import limits
from edgeinfer.guard.limits import REPLAYS
from edgeinfer.messages import DetectionsMessage, InfoMessage, Message, StatusMessage, encode, topic
from edgeinfer.sinks import zmq as zmq_sink
from edgeinfer.sinks.zmq import Options, ZmqPublisher
from edgeinfer.sinks.zmq import open as open_publisher
from edgeinfer.transport import connection, door, peers
from edgeinfer.transport.admission import Places
from edgeinfer.transport.endpoint import check_endpoint
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
    with ExitStack() as stack:
        for _ in range(2):  # the second one subscribes to what the first one, still there, has already
            subscriber = Subscriber(publisher.endpoint, kinds=("info", "status", "detections"))
            stack.enter_context(subscriber)
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
        publisher_ready(publisher)
        sent = ((5, "s"), (6, "s"), (9, "s"), (0, "t"), (1, "t"), (7, "u"), (8, "u"), (10, "u"), (10, "u"), (11, "u"))
        for number, session in sent:
            publisher.write(example("detections", number, session), None)
        got = [subscriber.receive(10) for _ in sent]
        assert [m.seq for m in got if isinstance(m, DetectionsMessage)] == [number for number, _ in sent]
        assert subscriber.lost == {"front": 2 + 1}, "of a daemon that is started again nothing was lost"


def test_each_source_has_gaps_of_its_own(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.endpoint) as subscriber:
        publisher_ready(publisher)
        for source, number in (("a", 0), ("b", 10), ("a", 1), ("b", 13)):
            publisher.write(of(source, number), None)
        for _ in range(4):
            assert subscriber.receive(10) is not None
        assert subscriber.lost == {"b": 2}


def of(source: str, number: int) -> Message:
    return structs.replace(example("detections", number), source=source)


class Arrived:
    """A connection on which these messages have come, and no more will."""

    refused = ""

    def __init__(self, *messages: Message | list[bytes]) -> None:
        self._waiting = [what if isinstance(what, list) else [b"", encode(what)] for what in messages]

    @property
    def socket(self) -> Arrived:
        return self

    def poll(self, timeout_ms: int | None) -> bool:
        return bool(self._waiting)

    def read(self, end: float | None = None) -> list[bytes]:
        return self._waiting.pop(0)

    def close(self) -> None: ...


def test_latest_gives_the_newest_in_the_place_in_line_of_the_one_that_it_overtakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = [of(*what) for what in (("a", 0), ("b", 0), ("c", 0), ("b", 1), ("a", 1), ("a", 2))]
    status = structs.replace(example("status"), source="c")
    monkeypatch.setattr(client, "Connection", lambda *_: Arrived(*sent, status))
    with Subscriber("x", kinds=("detections", "status"), latest=True) as subscriber:
        assert subscriber.receive(0) == sent[5]
        assert subscriber.receive(0) == sent[3]
        assert subscriber.receive(0) == sent[2]
        assert subscriber.receive(0) == status, "which overtakes no detections"
        assert subscriber.receive(0) is None
        assert subscriber.skipped == {"a": 2, "b": 1}
        assert not subscriber.lost, "what was passed over has arrived"


def test_what_is_no_message_is_passed_over_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rubbish = [
        [b"topic"],
        [b"topic", b"\xff\xfe"],
        [b"topic", b"{}"],
        [b"topic", b'{"kind":"\xff"}'],
        [b"", b"[" * 9999],
    ]
    for latest in (False, True):
        sent = (*rubbish[:2], of("a", 0), *rubbish[2:])
        monkeypatch.setattr(client, "Connection", lambda *_, sent=sent: Arrived(*sent))
        with Subscriber("x", latest=latest) as subscriber:
            assert subscriber.receive(5) == of("a", 0)
            assert subscriber.receive(0.05) is None
            assert subscriber.malformed == len(rubbish)


def test_what_is_subscribed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def connection(*args: object) -> Arrived:
        asked.append(args)
        return Arrived()

    monkeypatch.setattr(client, "Connection", connection)
    Subscriber()
    Subscriber("e", sources=("a", "b"), kinds=("info", "status"), high_water_mark=7, server_key="s", key="k")
    assert asked[0] == ("tcp://127.0.0.1:5555", [topic("detections")], 1000, None, None)
    endpoint, topics, *rest = asked[1]
    assert (endpoint, *rest) == ("e", 7, "s", "k")
    assert set(topics) == {topic(kind, source) for kind in ("info", "status") for source in ("a", "b")}


def test_without_latest_everything_comes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [of(*what) for what in (("a", 0), ("b", 0), ("a", 1), ("a", 2))]
    monkeypatch.setattr(client, "Connection", lambda *_: Arrived(*sent))
    assert list(Subscriber("x", timeout_s=0)) == sent


@pytest.mark.slow
def test_what_is_no_message_is_counted_and_passed_over(ipc: str) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as peer, Subscriber(ipc) as subscriber:
        peer.bind(ipc)
        assert peer.poll(30_000), "a subscription"
        for parts in ([topic("detections")], [topic("detections"), b"\xff\xfe"], [topic("detections"), b"{}"]):
            peer.send_multipart(parts)
        wait_for(lambda: subscriber.receive(0.1) is not None or subscriber.malformed >= 3, "all three")
        assert subscriber.malformed == 3


def publisher_ready(publisher: ZmqPublisher, subscribers: int = 1) -> None:
    """Until the subscriptions of so many have arrived."""
    serve_until(publisher, lambda: publisher.subscribers >= subscribers, "the subscriptions")


@pytest.mark.slow
def test_a_stopped_subscriber_costs_a_bounded_number_of_messages(publisher: ZmqPublisher) -> None:
    with Subscriber(publisher.endpoint, high_water_mark=5) as lazy, Subscriber(publisher.endpoint) as eager:
        publisher_ready(publisher, 2)
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
    "endpoint",
    ["tcp://127.0.0.1:0", "tcp://127.0.0.1:65535", "tcp://127.8.8.8:*", "tcp://[::1]:5", "ipc:///" + "x" * 106],
)
def test_endpoints_that_are_taken(endpoint: str) -> None:
    check_endpoint(endpoint, secured=False)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.0.2.1:1", "tcp://[::]:1"])
def test_what_others_reach_is_taken_with_keys(endpoint: str) -> None:
    check_endpoint(endpoint, secured=True)


def test_ipv6(ipc: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    sink = open_publisher(Options(bind="tcp://[::1]:*"))
    with Subscriber(sink.endpoint, kinds=("info",)) as subscriber:
        sink.write(example("info"), None)
        serve_until(sink, lambda: subscriber.receive(0) is not None, "info")
    sink.close()


def test_a_bind_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even its lock: the next try is not told that the daemon runs already."""
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            with pytest.raises(TemporaryError):
                open_publisher(Options(bind=taken))
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    for _ in range(2):
        sink = open_publisher(Options(bind=f"ipc://{path}"))
        assert (tmp_path / "s.lock").read_text() == str(os.getpid())
        (tmp_path / "s.lock").write_text("99999999 and more")
        sink.close()


def test_a_source_that_is_forgotten_is_latched_no_more(publisher: ZmqPublisher) -> None:
    """Nothing of it; and all of the others."""
    for kind in ("info", "status"):
        for source in ("a", "b"):
            publisher.write(structs.replace(example(kind), source=source), None)
    publisher.forget("a")
    with Subscriber(publisher.endpoint, kinds=("info", "status")) as subscriber:
        got = [first_message(publisher, subscriber) for _ in range(2)]
        assert [(type(message), message.source) for message in got] == [(InfoMessage, "b"), (StatusMessage, "b")]


def test_only_what_was_asked_for_is_sent_again_and_not_too_often(
    publisher: ZmqPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("info", "status"):
        publisher.write(example(kind), None)
    sent: list[bytes] = []
    monkeypatch.setattr(publisher, "_send", lambda frames: sent.append(frames[0]))
    peer = Peer(publisher.endpoint)
    peer.subscribe([topic("status")])
    serve_until(publisher, lambda: bool(sent), "a replay")
    assert sent == [topic("status", "front")]
    now = time.monotonic()
    monkeypatch.setattr(zmq_sink, "time", SimpleNamespace(monotonic=lambda: now))  # all that follows comes at once
    publisher._replays, publisher._replayed_s = float(REPLAYS), now
    for _ in range(20):
        publisher._wanted.add(topic("info"))
        publisher.service()
    assert len(sent) == 1 + REPLAYS
    now += 1.01
    publisher.service()
    assert len(sent) == 2 + REPLAYS, "what was asked for meanwhile is sent then"
    monkeypatch.undo()
    peer.socket.close()


def test_what_is_queued_when_the_publisher_closes_still_leaves(ipc: str) -> None:
    sink = open_publisher(Options(bind=ipc, high_water_mark=1000))
    with Subscriber(ipc, timeout_s=10) as subscriber:
        serve_until(sink, lambda: sink.subscribers == 1, "the subscriber")
        for number in range(200):
            sink.write(example("detections", number), None)
        sink.close()
        for number in range(200):
            message = subscriber.receive(10)
            assert isinstance(message, DetectionsMessage)
            assert message.seq == number


def test_a_publisher_that_is_closed_leaves_no_descriptor(ipc: str) -> None:
    open_publisher(Options(bind=ipc)).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        open_publisher(Options(bind=ipc)).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_endpoint_that_is_none_is_told_to_the_subscriber() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for endpoint in ("nonsense", "tcp://", "tcp://127.0.0.1:x", "udp://127.0.0.1:1"):
        with pytest.raises(UsageError, match=r"an endpoint looks like tcp://127\.0\.0\.1:5555"):
            Subscriber(endpoint)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("size", [1000, 1001])
def test_a_message_that_is_too_large_to_be_ours_is_not_taken(
    ipc: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.MAX_MESSAGE_BYTES == 1 << 20
    monkeypatch.setattr(connection, "MAX_MESSAGE_BYTES", 1000)
    payload = encode(example("detections")).ljust(size)
    with zmq.Context() as context, context.socket(zmq.XPUB) as peer, Subscriber(ipc) as subscriber:
        peer.bind(ipc)
        assert peer.recv()  # it has subscribed
        peer.send_multipart([topic("detections"), payload])
        peer.setsockopt(zmq.RCVTIMEO, 10_000)
        if size == 1000:
            assert subscriber.receive(10) is not None
            return
        wait_for(lambda: subscriber.receive(0.05) is None and bool(peer.poll(0)), "a new connection")
        assert not subscriber.malformed


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("tcp://0.0.0.0:5555", "other machines"),
        ("tcp://*:5555", "other machines"),
        ("tcp://[::]:5555", "other machines"),
        ("tcp://example.org:5555", "other machines"),
        ("tcp://127.0.0.1", "not an endpoint"),
        ("tcp://127.0.0.1:99999", "not an endpoint"),
        ("tcp://127.0.0.1:65536", "not an endpoint"),
        ("ipc:///" + "x" * 107, "longer than 107 bytes"),
        ("5555", "not an endpoint"),
        ("", "not an endpoint"),
        ("ipc:///" + "x" * 120, "longer than 107 bytes"),
        ("ipc:///no/such/folder/s", "No such file"),
        ("ipc://@name", "has no mode"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_publisher(Options(bind=endpoint))


def test_garbage_on_the_port_and_a_flood_of_subscriptions() -> None:
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    port = int(sink.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as peer, suppress(OSError):  # it may be cut before the end
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


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_of_an_ipc_socket_does_not_depend_on_the_umask(ipc: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        sink = open_publisher(Options(bind=ipc))
    finally:
        assert os.umask(before) == umask, "the process keeps its umask"
    assert stat.S_IMODE(Path(ipc.removeprefix("ipc://")).stat().st_mode) == 0o660
    sink.close()


def test_a_socket_file_that_a_dead_daemon_left_is_no_obstacle(ipc: str) -> None:
    path = Path(ipc.removeprefix("ipc://"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    path.with_name("s.lock").write_text("1")
    sink = open_publisher(Options(bind=ipc))
    with Subscriber(ipc, kinds=("info",)) as subscriber:
        sink.write(example("info"), None)
        serve_until(sink, lambda: subscriber.receive(0) is not None, "a message")
    sink.close()


def test_a_folder_in_which_others_could_replace_the_socket(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="no safe place for a socket"):
        open_publisher(Options(bind=f"ipc://{folder}/s"))
    folder.chmod(0o1777)  # sticky, as /tmp is: nobody can remove what is ours
    open_publisher(Options(bind=f"ipc://{folder}/s")).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_lock_of_somebody_else(tmp_path: Path) -> None:
    lock = tmp_path / "s.lock"
    lock.touch()
    os.chown(lock, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        open_publisher(Options(bind=f"ipc://{tmp_path}/s"))


def test_localhost_counts_where_it_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    check_endpoint("tcp://localhost:5555", secured=False)
    here, elsewhere = ("127.0.0.1", "::1"), ("192.0.2.1", "fe80::1%eth0", "0.0.0.0")  # noqa: S104 (it is refused)
    for found in ([address] for address in here):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: answers(found))
        check_endpoint("tcp://localhost:5555", secured=False)

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError, match="other machines"):
        check_endpoint("tcp://localhost:5555", secured=False)
    for other in elsewhere:  # alone, and among others
        for addresses in ([other], [*here, other], [other, *here]):
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=addresses, **__: answers(found))
            with pytest.raises(ConfigError, match="other machines"):
                check_endpoint("tcp://localhost:5555", secured=False)


def answers(addresses: list[str]) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


def test_an_insecure_bind_is_warned_of_at_every_start(caplog: pytest.LogCaptureFixture) -> None:
    open_publisher(Options(bind="tcp://0.0.0.0:*", insecure=True)).close()
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "whoever can reach it reads the detections" in record.message
    caplog.clear()
    open_publisher(Options(bind="tcp://127.0.0.1:*", insecure=True)).close()
    assert not caplog.records


def connected(endpoint: str) -> socket.socket:
    """A connection on which nothing has been said."""
    if endpoint.startswith("tcp://"):
        return socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])))
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(endpoint.removeprefix("ipc://"))
    return peer


class Peer:
    """A raw ZMTP 3 subscriber, for what a ZeroMQ library would not send."""

    GREETING = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)

    @staticmethod
    def ready(kind: bytes) -> bytes:
        command = b"\5READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
        return bytes([4, len(command)]) + command

    def __init__(self, endpoint: str) -> None:
        self.socket = connected(endpoint)
        try:
            self._shake_hands()
        except BaseException:
            self.socket.close()
            raise

    def _shake_hands(self) -> None:
        self.socket.settimeout(20)
        self.socket.sendall(self.GREETING)
        self.socket.sendall(self.ready(b"SUB"))
        answer = b""
        while b"READY" not in answer:  # what comes before it would be taken for part of the handshake
            block = self.socket.recv(4096)
            if not block:
                raise ConnectionError("cut before the end of the handshake")
            answer += block
        self.socket.settimeout(0.2)

    def subscribe(self, topics: Iterable[bytes]) -> None:
        """May end early, with an OSError, where the publisher cuts the connection or takes no more for now."""
        for name in topics:
            self.socket.sendall(bytes([0, len(name) + 1]) + b"\1" + name)

    @property
    def is_cut(self) -> bool:
        try:
            while self.socket.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


FLOOD = """
import sys
from tests.test_zmq import Peer, flood_with
peer = Peer(sys.argv[1])
peer.socket.settimeout(5)  # half a frame would make other frames of those that follow
flood_with(peer)
sys.exit(0 if peer.is_cut else 1)
"""


@pytest.mark.slow
def test_a_peer_with_too_many_subscriptions_is_cut_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    """It has a process of its own: with a thread the publisher would share its interpreter."""
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    with Subscriber(sink.endpoint, kinds=("status",)) as other:
        flood = subprocess.Popen([sys.executable, "-c", FLOOD, sink.endpoint], cwd=Path(__file__).parent.parent)
        serve_until(sink, lambda: flood.poll() is not None, "the flood to be cut")
        assert flood.returncode == 0
        assert "a subscriber was disconnected: it " in caplog.text
        sink.write(example("status"), None)
        serve_until(sink, lambda: other.receive(0) is not None, "a message for the other")
        assert sink.subscribers == 1
    sink.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "taken"), [(256, True), (257, True), (258, False), (512, False), (513, False), (1_000_000, False)]
)
def test_a_subscription_that_is_too_long_ends_the_connection(size: int, taken: bool) -> None:
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    peer = Peer(sink.endpoint)
    with suppress(OSError):
        peer.socket.sendall(b"\2" + size.to_bytes(8, "big") + b"\1" + b"x" * (size - 1))
    serve_until(sink, lambda: peer.is_cut or sink.subscribers > 0, "the end, or a subscription")
    assert bool(sink.subscribers) == taken, "it was not booked before the connection ended"
    peer.socket.close()
    sink.close()


@pytest.mark.slow
def test_subscriptions_wait_at_the_expense_of_who_sends_them(ipc: str) -> None:
    """While the publisher is busy elsewhere, the kernel's buffer fills up, and not libzmq's memory."""
    sink = open_publisher(Options(bind=ipc))
    peer = Peer(ipc)
    buffer = peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    frame = b"\0\xff\1" + b"x" * 254
    sent = 0
    with suppress(TimeoutError):
        while sent < buffer + 1_000_000:
            sent += peer.socket.send(frame)
    assert sent < buffer + 1_000_000
    peer.socket.close()
    sink.close()


@pytest.mark.parametrize("speaks", [False, True], ids=["nothing at all", "nothing more"])
def test_a_peer_that_says_nothing_is_given_up(speaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the handshake as after it; a laptop that was shut leaves its connection open."""
    monkeypatch.setattr(zmq_sink, "HANDSHAKE_MS", 100)
    if speaks:
        monkeypatch.setattr(peers, "SILENCE_S", 0.1)
        monkeypatch.setattr(door, "REFRESH_S", 0.01)
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    peer = Peer(sink.endpoint).socket if speaks else connected(sink.endpoint)
    peer.settimeout(15)  # libzmq's own patience with a handshake is 30 s, and with a silent peer it has no end
    while peer.recv(4096):
        pass
    peer.close()
    sink.close()


LOST_NETWORK = """
import ctypes, fcntl, os, socket, struct
CLONE_NEWNET = 0x40000000
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
    raise PermissionError(ctypes.get_errno(), "unshare")

def loopback(up):
    with socket.socket() as any_socket:  # SIOCSIFFLAGS, IFF_UP (netdevice(7))
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", int(up), b""))

from edgeinfer.client import Subscriber
from edgeinfer.transport import connection
from tests.test_zmq import Peer
connection.IDLE_S = connection.PROBE_S = connection.PROBES = 1
loopback(True)
with socket.create_server(("127.0.0.1", 0)) as server:
    server.settimeout(30)
    with Subscriber(f"tcp://127.0.0.1:{server.getsockname()[1]}") as subscriber:
        first, _ = server.accept()
        first.sendall(Peer.GREETING + Peer.ready(b"XPUB"))
        subscriber.receive(0.5)
        loopback(False)
        subscriber.receive(4)
        loopback(True)
        server.accept()[0].close()
        first.close()
print("found again")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a network namespace, which root may make")
def test_a_daemon_whose_machine_lost_its_network_is_looked_for_again() -> None:
    """It says no goodbye."""
    process = subprocess.run([sys.executable, "-c", LOST_NETWORK], capture_output=True, text=True, check=False)
    if "PermissionError" in process.stderr:
        pytest.skip("no network namespaces here")
    assert process.stdout == "found again\n", process.stderr


def test_a_descriptor_that_is_not_ours_any_more_is_left_alone() -> None:
    """A connection ends, and its number is that of a file or another socket before we cut it."""
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        theirs = socket.create_connection(elsewhere.getsockname())
        other, _ = elsewhere.accept()
    one, two = socket.socketpair()
    read, write = os.pipe()
    for descriptor in (other.fileno(), one.fileno(), read):
        sink._peers._peers[descriptor] = peers.Peer(key="k")
    sink._peers.keep(())
    assert sink._peers.cut == 0
    other.sendall(b"x")
    one.sendall(b"x")
    assert (theirs.recv(1), two.recv(1)) == (b"x", b"x")
    for used in (other, theirs, one, two):
        used.close()
    os.close(read)
    os.close(write)
    sink.close()


@pytest.mark.slow
def test_a_subscription_that_was_given_up_counts_no_more_though_another_has_it_too(
    ipc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "MAX_SUBSCRIPTIONS", 2)
    sink = open_publisher(Options(bind=ipc))
    other, modest = Peer(sink.endpoint), Peer(sink.endpoint)
    other.subscribe([b"1", b"2"])
    modest.subscribe([b"1", b"2"])
    serve_until(sink, lambda: sink.subscribers == 2, "both")
    for old, new in ((b"1", b"3"), (b"2", b"4"), (b"3", b"1")):
        modest.socket.sendall(b"\0\2\0" + old)
        modest.subscribe([new])
        for _ in range(20):
            sink.service()
            time.sleep(0.001)
    assert not modest.is_cut
    assert sink.subscribers == 2
    for peer in (other, modest):
        peer.socket.close()
    sink.close()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["tcp", "ipc"])
def test_who_is_cut_is_cut_on_either_kind_of_socket(where: str, ipc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAX_SUBSCRIPTIONS", 2)
    sink = open_publisher(Options(bind=ipc if where == "ipc" else "tcp://127.0.0.1:*"))
    greedy, modest = Peer(sink.endpoint), Peer(sink.endpoint)
    modest.subscribe([b"1", b"2"])
    serve_until(sink, lambda: sink.subscribers == 1, "the modest one")
    greedy.subscribe([b"1", b"2", b"3"])
    serve_until(sink, lambda: greedy.is_cut, "the end of the greedy one")
    modest.socket.sendall(b"\0\2\0" + b"1")  # the end of a subscription makes room
    modest.subscribe([b"4"])
    for _ in range(20):
        sink.service()
    assert not modest.is_cut
    assert sink.subscribers == 1
    for peer in (greedy, modest):
        peer.socket.close()
    serve_until(sink, lambda: sink.subscribers == 0, "both to have gone")
    sink.close()


@pytest.mark.long
def test_a_frozen_subscriber_costs_nobody_anything(daemon_process: Start, ipc: str) -> None:
    """A subscriber in SIGSTOP: the daemon's memory stays, and another one misses nothing."""
    daemon = daemon_process("run", "--source", "cam=demo:", "--bind", ipc, "--set", "sources.cam.fps=100")
    frozen = daemon_process("listen", ipc, "--jsonl")
    assert frozen.stdout is not None
    frozen.stdout.readline()
    frozen.send_signal(signal.SIGSTOP)
    with Subscriber(ipc, timeout_s=30) as subscriber:
        for _ in range(20):
            assert subscriber.receive(30) is not None
        before = psutil.Process(daemon.pid).memory_info().rss
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert subscriber.receive(30) is not None
        assert not subscriber.lost
    assert psutil.Process(daemon.pid).memory_info().rss - before < 40e6


def flood_with(peer: Peer, total: int = 10_000_000) -> None:
    for number in range(total):
        try:
            peer.subscribe([b"%d" % number])
        except TimeoutError:  # one that is cut while its buffers are full can send no more, and is not told so
            if peer.is_cut:
                return
        except OSError:
            return


@pytest.mark.alone
def test_a_flood_of_subscriptions_does_not_grow_memory() -> None:
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    us, stop = psutil.Process(), threading.Event()
    sink.service()
    before = us.memory_info().rss
    code = f"import sys; sys.path.insert(0, '.'); from tests.test_zmq import endless; endless({sink.endpoint!r})"
    flood = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    end = time.monotonic() + 5
    while time.monotonic() < end and not stop.is_set():
        sink.write(example("status"), None)
        sink.service()
        time.sleep(0.02)
    flood.kill()
    flood.wait()
    grown = us.memory_info().rss - before
    sink.close()
    assert grown < 50e6, f"{grown / 1e6:.0f} MB"


def endless(endpoint: str) -> None:
    """Floods a publisher with subscriptions, from a fresh connection whenever it is cut. Never returns."""
    block = b"".join(bytes([0, 9]) + b"\1" + number.to_bytes(8, "big") for number in range(20_000))
    while True:
        peer = Peer(endpoint)
        peer.socket.settimeout(None)
        with suppress(OSError):
            while True:
                peer.socket.sendall(block)


@pytest.mark.slow
def test_too_many_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "places", lambda: Places(3, 10))
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    crowd = [Peer(sink.endpoint) for _ in range(3)]
    for peer in crowd:
        peer.subscribe([b"edgeinfer"])
    serve_until(sink, lambda: sink.subscribers == 3, "all three")
    assert not any(peer.is_cut for peer in crowd), "three are not too many"
    crowd.append(Peer(sink.endpoint))
    crowd[-1].subscribe([b"edgeinfer"])

    def last_is_cut() -> bool:
        return sum(peer.is_cut for peer in crowd) == 1

    serve_until(sink, last_is_cut, "one to be cut")
    assert sink._peers.cut == 1
    assert crowd[-1].is_cut, "who was there first stays"
    for peer in crowd:
        peer.socket.close()
    sink.close()


@pytest.mark.slow
def test_a_peer_that_toggles_does_not_multiply_what_others_get(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    sink.write(example("status"), None)
    peer = Peer(sink.endpoint)
    with Subscriber(sink.endpoint, kinds=("status",)) as other:
        serve_until(sink, lambda: other.receive(0) is not None, "the first status")
        started, got = time.monotonic(), 0
        while time.monotonic() - started < 1:
            peer.subscribe([b"e"])
            peer.socket.sendall(b"\0\2\0e")
            sink.service()
            got += other.receive(0.03) is not None  # a peer that toggles faster is cut
        seconds = time.monotonic() - started
    assert got <= seconds + REPLAYS + 1
    peer.socket.close()
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
