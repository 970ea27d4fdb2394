"""Health and metrics over real HTTP, also for peers that do not behave."""

from __future__ import annotations

import builtins
import errno
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeinfer.errors import ConfigError, TemporaryError
from edgeinfer.flow.statistics import BUCKETS_MS, Statistics
from edgeinfer.guard.limits import HTTP_DEADLINE_S, MAX_HTTP_PEERS, MAX_REQUEST_BYTES
from edgeinfer.messages import MachineVitals, Reason, State
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SinkSnapshot, SourceSnapshot
from edgeinfer.types import Timing
from edgeinfer.web import pages, readiness, server
from edgeinfer.web.request import Answer
from edgeinfer.web.server import Server, parse_bind
from tests.conftest import Cli
from tests.starving import without_descriptors
from tests.test_run import one_error_line
from tests.test_zmq import Start, wait_for


def books(state: State = "running", **dropped: int) -> SourceSnapshot:
    return SourceSnapshot(state, None, 10 + sum(dropped.values()), 10, 0, dropped, 12.5)


def seen(**changes: Any) -> DaemonSnapshot:
    fields = {"model": "net@12345678", "sources": {"a": books()}, "backend": "onnxruntime-cpu"}
    return DaemonSnapshot(**{**fields, **changes})


@pytest.mark.parametrize(
    ("observation", "alive", "ready", "code"),
    [
        (seen(), True, True, ""),
        (seen(backend=""), True, False, "model"),
        (seen(bound=False), True, False, "socket"),
        (seen(sources={"a": books("stalled"), "b": books("reconnecting")}), True, False, "sources"),
        (seen(sources={"a": books("failed"), "b": books()}), True, True, ""),
        (seen(sources={"a": books("ended")}), True, True, ""),
        (seen(sources={}), True, True, ""),
        (seen(faults=(Reason("inference", "FatalError: CUDA error 700"),)), False, False, "inference"),
        (seen(shortage=Reason("out-of-memory", "no room")), True, False, "out-of-memory"),
        (seen(sinks={"sinks.jsonl": SinkSnapshot("full", 1)}), True, False, "sink"),
        (seen(sinks={"sinks.jsonl": SinkSnapshot("", 1)}), True, True, ""),
    ],
)
def test_alive_and_ready(observation: DaemonSnapshot, alive: bool, ready: bool, code: str) -> None:
    assert readiness.alive(observation).ok == alive
    verdict = readiness.ready(observation, 1)
    assert verdict.ok == ready
    assert [reason.code for reason in verdict.reasons] == ([code] if code else [])


def test_as_many_sources_as_are_asked_for_must_run() -> None:
    two = seen(sources={"a": books(), "b": books("stalled")})
    assert readiness.ready(two, 1).ok
    assert not readiness.ready(two, 2).ok
    assert not readiness.ready(two, 99).ok, "all of them, where there are fewer"


def statistics() -> Statistics:
    stats = Statistics()
    for index in range(2500):
        stats.add(Timing(0.1, 0.4, 5.0, 0.2), 1.0 if index % 2 else 40.0, "a" if index % 5 else "b")
    return stats


def numbers() -> DaemonSnapshot:
    return seen(
        sources={"a": books(overload=3), "b": books("stalled")},
        versions={"onnxruntime": "1.0"},
        rate=0.5,
        subscribers=2,
        sinks={"sinks.jsonl": SinkSnapshot("", 7), "publish": SinkSnapshot()},
        machine=MachineVitals(throttled=["cpu"], temperatures_c={'zo"ne\n': 51.0}, gpu_load=0.25),
    )


@pytest.fixture
def running() -> Iterator[Server]:
    made = Server("127.0.0.1", 0, pages.routes(numbers, statistics(), 1))
    made.start()
    yield made
    made.stop()


def request(running: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_health_and_readiness(running: Server) -> None:
    for path in ("/healthz", "/readyz", "/readyz?verbose"):
        status, headers, body = request(running, path)
        assert (status, json.loads(body)) == (200, {"ok": True, "reasons": []})
        assert headers["Content-Type"] == "application/json"
        assert headers["Cache-Control"] == "no-store"
        assert "Python" not in headers["Server"]


def test_what_is_wrong_is_a_503_with_the_reason() -> None:
    made = Server("127.0.0.1", 0, pages.routes(lambda: seen(backend=""), statistics(), 1))
    made.start()
    status, _, body = request(made, "/readyz")
    assert status == 503
    assert json.loads(body)["reasons"] == [{"code": "model", "text": "the model is not loaded yet"}]
    made.stop()


def test_the_metrics_are_those_of_the_books(running: Server) -> None:
    status, _, body = request(running, "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["edgeinfer_frames_captured_total", ("source", "a")] == 13
    assert values["edgeinfer_frames_inferred_total", ("model", "net@12345678"), ("source", "a")] == 10
    assert values["edgeinfer_frames_dropped_total", ("reason", "overload"), ("source", "a")] == 3
    assert values["edgeinfer_messages_published_total", ("source", "b")] == 500
    assert (values["edgeinfer_source_up", ("source", "a")], values["edgeinfer_source_up", ("source", "b")]) == (1, 0)
    assert values["edgeinfer_temperature_celsius", ("zone", 'zo"ne\n')] == 51
    assert values["edgeinfer_throttled", ("kind", "cpu")] == 1
    assert values["edgeinfer_gpu_utilization_ratio",] == 0.25
    assert values["edgeinfer_zmq_subscribers",] == 2
    assert values["edgeinfer_sink_up", ("sink", "publish")] == 1
    assert values["edgeinfer_sink_messages_lost_total", ("sink", "sinks.jsonl")] == 7
    assert values["edgeinfer_build_info", ("onnxruntime", "1.0"), ("version", "0.1.0")] == 1
    assert values["edgeinfer_pipeline_latency_seconds_count", ("source", "a")] == 2000
    assert values["edgeinfer_pipeline_latency_seconds_bucket", ("le", "0.001"), ("source", "a")] == 1000
    assert values["edgeinfer_pipeline_latency_seconds_bucket", ("le", "0.05"), ("source", "a")] == 2000
    assert values["edgeinfer_pipeline_latency_seconds_sum", ("source", "a")] == pytest.approx(41.0)
    assert values["edgeinfer_stage_duration_seconds_sum", ("stage", "infer")] == pytest.approx(12.5)
    assert "edgeinfer_gpu_clock_hertz" not in families, "what is not measured is not there"
    assert values["process_resident_memory_bytes",] > 1e6


def test_a_sink_that_loses_is_down_in_the_metrics() -> None:
    page = pages.routes(lambda: seen(sinks={"sinks.x": SinkSnapshot("full", 1)}), statistics(), 1)["/metrics"]("")
    assert b'edgeinfer_sink_up{sink="sinks.x"} 0.0' in page.body


def test_histograms_count_every_frame_once() -> None:
    stats = Statistics()
    for index in range(25_000):
        stats.add(Timing(0, 0, float(index % 100), 0), 6000.0, "x")
        if index % 7_000 == 0:
            stats.stages()
    infer, total = stats.stages()["infer"], stats.sources()["x"]
    assert infer.counts[-1] == total.counts[-1] == 25_000
    assert infer.counts[BUCKETS_MS.index(50.0)] == 250 * 51
    assert total.counts[-2] == 0
    assert total.sum_ms == pytest.approx(25_000 * 6000.0)


def test_openmetrics_for_those_who_ask(running: Server) -> None:
    _, headers, body = request(running, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_without_the_library_health_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "edgeinfer.web.metrics", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    made = pages.routes(numbers, statistics(), 1)
    assert made["/healthz"]("").status == 200
    answer = made["/metrics"]("")
    assert answer.status == 501
    assert b"pip install 'edgeinfer[metrics]'" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/../etc/passwd", 404),
        ("POST", "/healthz", 405),
        ("DELETE", "/metrics", 405),
        ("OPTIONS", "*", 405),
        ("BREW", "/healthz", 405),
    ],
)
def test_nothing_else_is_served(running: Server, method: str, path: str, status: int) -> None:
    assert request(running, path, method)[0] == status


def test_head_has_no_body(running: Server) -> None:
    status, headers, body = request(running, "/healthz", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


def test_a_web_page_under_its_own_name_gets_nothing(running: Server) -> None:
    for host in FOREIGN:
        assert request(running, "/metrics", Host=host)[0] == 421, host
    for host in ("localhost:9108", "LOCALHOST", "localhost.localdomain", "127.0.0.1", "192.0.2.1:80", "[::1]:9108", ""):
        assert request(running, "/healthz", Host=host)[0] == 200, host


FOREIGN = [
    "attacker.example", "attacker.example:9108", "localhost.attacker.example", "attacker.localhost", "notlocalhost",
    "localhost.localdomain.attacker.example", "127.0.0.1.attacker.example", "127.0.0.1@attacker.example", "localhost:x",
    "localhost:9108:9108", "[::1].attacker.example", "localhost:123456",
]  # fmt: skip


def test_an_insecure_bind_is_reached_by_any_name() -> None:
    """As far as it goes: nobody is kept out there, so a name keeps nobody out either."""
    made = Server("0.0.0.0", 0, {"/x": lambda _: Answer(200, b"{}")})  # noqa: S104 (its peers come from loopback)
    made.start()
    assert request(made, "/x", Host="cameras.example")[0] == 200
    made.stop()


def raw(running: Server, data: bytes, finish: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as peer:
        answer = b""
        try:
            peer.sendall(data)
            if finish:
                peer.shutdown(socket.SHUT_WR)
            while block := peer.recv(4096):
                answer += block
        except OSError:  # it was cut, which is an answer too
            return answer
        return answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.0\r\nX: " + b"y" * 15_000 + b"\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nX: ".ljust(16 << 10, b"y"), b"431"),
        (b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(99)) + b"\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(101)) + b"\r\n", b"431"),
        (b"GET /".ljust(16 << 10, b"y"), b"431"),
        (b"\0" * 3000 + b"\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9\r\n\r\n", b"505"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET /healthz\xff HTTP/1.0\r\n\r\n", b"404"),
    ],
)
def test_requests_that_are_too_much_or_none(running: Server, data: bytes, status: bytes) -> None:
    """Each gets an answer, and none of what it sent back."""
    answer = raw(running, data, finish=True)
    assert answer.split(b" ")[:2] == [b"HTTP/1.0", status]
    assert b"yyyy" not in answer
    assert request(running, "/healthz")[0] == 200


def test_a_request_that_has_no_end_is_cut_off(running: Server) -> None:
    """What is still under way when the answer comes may cut it short, and so may it be."""
    answer = raw(running, b"GET /" + b"a" * 1_000_000)
    assert not answer or answer.startswith(b"HTTP/1.0 4")
    assert b"aaaa" not in answer


def connect(running: Server, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=20))


@pytest.mark.slow
def test_slow_peers_are_cut_and_hold_up_nobody(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that send a byte now and then, as long as they like, and those that send nothing."""
    monkeypatch.setattr(server, "DEADLINE_S", 0.5)
    with ExitStack() as stack:
        slow = [connect(running, stack) for _ in range(9)]
        dripping = set(slow[:5])
        while dripping:
            assert _answers(running)
            for peer in list(dripping):
                try:
                    peer.send(b"x")
                except OSError:
                    dripping.discard(peer)
        assert [peer.recv(10) for peer in slow[5:]] == [b""] * 4


@pytest.mark.parametrize("start", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.0\r\nX: y\r\n"])
def test_a_hundred_slow_peers_keep_nobody_from_an_answer(running: Server, start: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            connect(running, stack).sendall(start)
            assert request(running, "/healthz")[0] == 200
        assert len(running._open) <= MAX_HTTP_PEERS


def test_peers_that_do_not_read_their_answer_keep_nobody_from_one() -> None:
    made = Server(
        "127.0.0.1", 0, {"/large": lambda _: Answer(200, bytes(32 << 20)), "/x": lambda _: Answer(200, b"{}")}
    )
    made.start()
    with ExitStack() as stack:
        for _ in range(3):
            connect(made, stack).sendall(b"GET /large HTTP/1.0\r\n\r\n")
            assert request(made, "/x")[0] == 200
        wait_for(lambda: len([peer for peer in made._open if peer.sent]) == 3, "the beginnings of the answers")
        assert request(made, "/x")[0] == 200
    made.stop()


def test_the_oldest_connection_gives_way_where_there_are_too_many(
    running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_HTTP_PEERS", 3)
    with ExitStack() as stack:
        peers = [connect(running, stack) for _ in range(5)]
        assert [peer.recv(10) for peer in peers[:2]] == [b"", b""]
        for peer in peers[2:]:
            peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert peer.recv(12) == b"HTTP/1.0 200"


def test_several_requests_at_once_get_one_answer(running: Server) -> None:
    answer = raw(running, b"GET /healthz HTTP/1.1\r\n\r\n" * 20)
    assert answer.count(b"HTTP/1.0 200") == 1


def test_a_request_may_come_in_pieces(running: Server) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as peer:
        for byte in b"GET /healthz HTTP/1.0\r\n\r\n":
            peer.sendall(bytes([byte]))
        assert peer.recv(12) == b"HTTP/1.0 200"


def test_without_descriptors_it_answers_all_the_same_and_does_not_turn_in_circles(running: Server) -> None:
    """The one that is kept for that is enough for one peer at a time."""
    wait_for(lambda: running._spare.held, "the spare one")
    turns = 0
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.socket()) for _ in range(3)]
        stack.enter_context(without_descriptors())
        for peer in peers:
            peer.settimeout(20)
            peer.connect(("127.0.0.1", running.port))
            peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert peer.recv(12) == b"HTTP/1.0 200"
            turns += 1
    assert turns == 3
    assert _answers(running)


@pytest.mark.parametrize(
    ("number", "rests"),
    [(errno.EMFILE, True), (errno.ENOBUFS, True), (errno.EAGAIN, False), (errno.ECONNABORTED, False)],
)
def test_it_makes_room_and_rests_only_where_the_machine_lacks_something(
    monkeypatch: pytest.MonkeyPatch, number: int, rests: bool
) -> None:
    """Not where somebody knocked and has gone before he was let in."""
    made = Server("127.0.0.1", 0, {})
    calls: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(made, "_listener", Gone(number))
        patch.setattr(made, "_make_room", lambda: calls.append("room"))
        patch.setattr(made, "_rest", lambda: calls.append("rest"))
        made._accept()
    made.stop()
    assert calls == (["room", "rest"] if rests else [])


@pytest.mark.parametrize(("number", "kind"), [(errno.EMFILE, TemporaryError), (errno.EACCES, ConfigError)])
def test_a_port_that_can_not_be_bound_at_present_may_be_later(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def fails(host: str, port: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(server, "_listen", fails)
    with pytest.raises(kind, match=os.strerror(number)):
        Server("127.0.0.1", 0, {})


class Gone:
    """A listener whose every call fails."""

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.slow
def test_where_not_even_one_descriptor_is_left_it_rests(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def accept(_: socket.socket) -> None:
        tries.append(time.monotonic())
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(server, "REST_S", 60.0)
    with monkeypatch.context() as patched, socket.socket() as peer:
        patched.setattr(socket.socket, "accept", accept)
        peer.connect(("127.0.0.1", running.port))
        wait_for(lambda: running._resting_until_s is not None, "the rest")
        assert len(tries) <= 2, "with the spare one, and without"
    running._resting_until_s = 0.0
    assert _answers(running), "it goes on where there are some again"


def _answers(running: Server) -> bool:
    return raw(running, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")


def test_a_page_that_fails_is_a_500_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: str) -> Answer:
        raise RuntimeError("secret")

    made = Server("127.0.0.1", 0, {"/x": broken})
    made.start()
    status, _, body = request(made, "/x")
    assert (status, body) == (500, b"Internal Server Error\n")
    made.stop()


@pytest.mark.parametrize("bind", ["0.0.0.0:9108", "[::]:9108", "192.0.2.1:80", "example.org:80", "*:80"])
def test_an_address_that_others_can_reach_is_refused(bind: str) -> None:
    with pytest.raises(ConfigError, match="other machines"):
        parse_bind(bind, insecure=False)
    parse_bind(bind, insecure=True)


@pytest.mark.parametrize("bind", ["", "9108", "127.0.0.1", "127.0.0.1:99999", "::1:80", "http://127.0.0.1:80"])
def test_what_is_no_address(bind: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        parse_bind(bind, insecure=False)


@pytest.mark.parametrize(
    ("bind", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:65535", ("::1", 65535)), ("localhost:80", ("localhost", 80))],
)
def test_an_address_of_this_machine(bind: str, address: tuple[str, int]) -> None:
    assert parse_bind(bind, insecure=False) == address


@pytest.mark.parametrize("bind", ["127.0.0.1:65536", "[127.0.0.1]x:1", "a b:1", "127.0.0.1:1 ", ":1", "[]:1"])
def test_what_is_no_address_either(bind: str) -> None:
    with pytest.raises(ConfigError, match="is not an address"):
        parse_bind(bind, insecure=True)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"http\.bind: 192\.0\.2\.1:0: .*; bind to an address of this machine"):
        Server("192.0.2.1", 0, {})


def test_a_server_that_is_stopped_ends_its_connections_and_frees_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEADLINE_S", 60.0)  # it is not its patience that ends them
    made = Server("127.0.0.1", 0, {"/x": lambda _: Answer(200, b"{}")})
    made.start()
    with socket.create_connection(("127.0.0.1", made.port), timeout=20) as idle:
        wait_for(lambda: bool(made._open), "the connection")
        made.stop()
        assert idle.recv(10) == b""
    assert not made._thread.is_alive()
    again = Server("127.0.0.1", made.port, {})
    assert again.port == made.port
    again.stop()


def test_a_place_is_free_again_once_a_connection_has_ended(running: Server) -> None:
    for _ in range(24):
        assert request(running, "/healthz")[0] == 200
    wait_for(lambda: not running._open, "the end of all of them")


def test_how_much_is_taken_and_for_how_long() -> None:
    """As docs/security.md says."""
    assert (MAX_HTTP_PEERS, MAX_REQUEST_BYTES, HTTP_DEADLINE_S) == (64, 16 << 10, 5)


def test_what_every_answer_carries(running: Server) -> None:
    for path, method, status in (("/healthz", "GET", 200), ("/none", "GET", 404), ("/healthz", "POST", 405)):
        found, headers, body = request(running, path, method)
        assert found == status
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Connection"] == "close"
        assert headers["Server"] == "edgeinfer"
        assert int(headers["Content-Length"]) == len(body) > 0
        assert headers.get("Allow") == ("GET, HEAD" if status == 405 else None)
    assert request(running, "/none", "HEAD")[1]["Content-Type"] == "text/plain"
    for data in (b"HEAD /none HTTP/1.0\r\n\r\n", b"HEAD /healthz HTTP/1.0\r\n\r\n"):
        assert raw(running, data).endswith(b"\r\n\r\n")


def test_the_accept_header_reaches_the_page_and_a_query_does_not() -> None:
    seen_by_page: list[str] = []

    def page(accept: str) -> Answer:
        seen_by_page.append(accept)
        return Answer(200, b"ok", "text/x")

    made = Server("127.0.0.1", 0, {"/x": page})
    made.start()
    assert request(made, "/x?y=/z", Accept="a/b")[1]["Content-Type"] == "text/x"
    assert raw(made, b"GET /x HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nok")
    assert seen_by_page == ["a/b", ""]
    made.stop()


def test_ipv6(running: Server) -> None:
    try:
        made = Server("::1", 0, running.routes)
    except ConfigError:
        pytest.skip("no IPv6 here")
    made.start()
    connection = http.client.HTTPConnection("::1", made.port, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    made.stop()


def test_a_port_that_is_taken(running: Server) -> None:
    with pytest.raises(TemporaryError, match="in use by another program"):
        Server("127.0.0.1", running.port, {})


def test_the_daemon_end_to_end(daemon_process: Start, cli: Cli, tmp_path: Path, ipc: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = daemon_process(
        "run",
        *("--source", "cam=demo:", "--source", "gone=none.mp4"),
        *("--bind", ipc, "--set", f"http.bind=127.0.0.1:{port}"),
    )

    def get(path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    wait_for(lambda: get("/readyz")[0] == 200, "readiness")
    assert get("/healthz")[0] == 200
    assert b'edgeinfer_source_up{source="gone"} 0.0' in get("/metrics")[1]
    status = cli("status", ipc)
    assert status.returncode == 75, "a source has failed"
    assert "gone    failed" in status.stdout
    assert "no such file" in status.stdout
    whole = json.loads(cli("status", ipc, "--json").stdout)
    assert (whole["ok"], whole["sources"]["cam"]["state"]) == (False, "running")
    top = cli("top", ipc)
    assert top.returncode == 0
    assert "capture → publish" in top.stdout
    second = cli("run", "--source", "demo:", "--set", "publish=null", "--set", f"http.bind=127.0.0.1:{port}")
    assert second.returncode == 75
    assert "in use by another program" in one_error_line(second)
    daemon.terminate()
    assert daemon.wait(20) == 0
    gone = cli("status", ipc)
    assert gone.returncode == 69
    assert "no daemon answers" in one_error_line(gone)


def test_status_is_zero_where_all_is_well(daemon_process: Start, cli: Cli, ipc: str) -> None:
    daemon_process("run", "--source", "cam=demo:", "--bind", ipc)
    deadline = time.monotonic() + 30
    while (process := cli("status", ipc)).returncode != 0:
        assert time.monotonic() < deadline, process.stdout + process.stderr
    assert "cam     running" in process.stdout
