"""SIGHUP and `edgeinfer reload` against real daemons, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import yaml
from msgspec import UNSET

from edgeinfer.client import Subscriber
from edgeinfer.messages import DAEMON, InfoMessage, Message, StatusMessage
from edgeinfer.sinks.zmq import Options, ZmqPublisher
from edgeinfer.watchdog.crash import boot_id
from tests.conftest import Cli
from tests.test_messages import example
from tests.test_reload import SMALL, network

Start = Callable[..., "subprocess.Popen[str]"]
WAIT_S = 60.0


def report_of(message: Message) -> Any:
    return message.reload if isinstance(message, StatusMessage) and message.reload is not UNSET else None


class Service:
    """A daemon with its configuration file, and everything that it publishes."""

    def __init__(self, start: Start, folder: Path, ipc: str, *args: str, **file: Any) -> None:
        self.path = folder / "config.yaml"
        self.ipc = ipc
        self.file: dict[str, Any] = {
            "model": {"path": network(folder, "one", ["thing", "person"], [16, 14, 48, 50])},
            "backend": {"name": "onnxruntime", "threads": 1},
            "publish": {"bind": ipc},
            "sources": {"a": LIVE},
            **file,
        }
        self.write()
        self.subscriber = Subscriber(ipc, kinds=("detections", "status", "info"), high_water_mark=100_000)
        self.process = start("run", "--config", str(self.path), *args)
        self.messages: list[Message] = []

    def write(self, **changes: Any) -> None:
        self.file = {**self.file, **changes}
        self.path.write_text(yaml.safe_dump(self.file))

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def until(self, condition: Callable[[Message], object], what: str) -> Message:
        """Receives until a message satisfies the condition, and returns it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            message = self.subscriber.receive(0.2)
            if message is not None:
                self.messages.append(message)
                if condition(message):
                    return message
            assert time.monotonic() < deadline, f"waited {WAIT_S:.0f} s for {what}"
            assert self.process.poll() is None, f"the daemon has ended before {what}"

    def until_result(self, source: str) -> None:
        self.until(lambda m: m.source == source and hasattr(m, "seq"), f"a result of {source}")

    def until_reloaded(self, count: int) -> StatusMessage:
        message = self.until(lambda m: (report := report_of(m)) and report.finished >= count, f"reload {count}")
        assert isinstance(message, StatusMessage)
        return message

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=WAIT_S)
        return err


LIVE = {"uri": "demo:", "width": 64, "height": 64, "fps": 20}


@pytest.fixture
def service(daemon_process: Start, tmp_path: Path, ipc: str) -> Iterator[Service]:
    service = Service(daemon_process, tmp_path, ipc)
    with service.subscriber:
        service.until_result("a")
        yield service


def test_a_hangup_applies_the_file(service: Service) -> None:
    service.write(sources={"a": LIVE, "b": LIVE})
    service.hang_up()
    report = report_of(service.until_reloaded(1))
    assert (report.ok, report.changes) == (True, ("sources.b: added",))
    service.until_result("b")
    service.write(sources={"b": LIVE})
    service.hang_up()
    service.until(
        lambda m: isinstance(m, StatusMessage) and m.source == "a" and m.reason and m.reason.code == "removed",
        "its goodbye",
    )
    service.until(lambda m: isinstance(m, InfoMessage) and m.sources == ["b"], "info")
    with Subscriber(service.ipc, kinds=("status", "info")) as late:
        topics = set()
        for _ in range(6):
            message = late.receive(10)
            assert message is not None
            topics.add((type(message), message.source))
    assert topics == {(StatusMessage, "b"), (StatusMessage, DAEMON), (InfoMessage, DAEMON)}, "nothing latched of a"
    service.end()
    assert service.process.returncode == 0


def test_the_command_reloads_and_tells(service: Service, cli: Cli) -> None:
    service.write(sources={"a": {**LIVE, "fps": 10}, "b": LIVE})
    process = cli("reload", service.ipc)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines() == ["sources.a: fps changed; opened again", "sources.b: added"]
    assert cli("reload", service.ipc).stdout == "nothing has changed\n"
    service.write(sources={"a": {"uri": "rtspx://admin:geheim@10.0.0.1/"}})
    process = cli("reload", service.ipc)
    assert process.returncode == 78
    (line,) = process.stderr.splitlines()
    assert line.startswith("edgeinfer: error: not reloaded: ")
    assert "***@10.0.0.1" in line
    service.path.write_text("sources: [")
    process = cli("reload", service.ipc)
    assert process.returncode == 78
    assert "config.yaml:1:11: not valid YAML" in process.stderr
    log = service.end()
    assert log.count("reload failed") == 2
    assert "geheim" not in log + process.stderr + repr(service.messages)


def test_overrides_of_the_command_line_stay_in_force(daemon_process: Start, tmp_path: Path, ipc: str) -> None:
    service = Service(
        daemon_process, tmp_path, ipc, "--set", "sources.a.width=96", "--source", "demo:", "--set", "frames=100000"
    )
    with service.subscriber:
        service.until_result("demo")
        service.write(sources={"a": {**LIVE, "width": 128}, "demo": LIVE, "b": LIVE})
        service.hang_up()
        assert report_of(service.until_reloaded(1)).changes == ("sources.b: added",)
        service.until_result("b")
        infos = [m for m in service.messages if isinstance(m, InfoMessage)]
        assert sorted(infos[-1].sources) == ["a", "b", "demo"]
        assert {getattr(m, "width", 96) for m in service.messages if m.source == "a"} == {96}


def test_without_a_file_a_hangup_is_answered(daemon_process: Start, ipc: str, cli: Cli) -> None:
    process = daemon_process("run", "--source", "demo:", "--bind", ipc)
    with Subscriber(ipc) as subscriber:
        assert subscriber.receive(WAIT_S)
        answer = cli("reload", ipc)
        assert answer.returncode == 78
        assert "there is no file to reload" in answer.stderr
        assert subscriber.receive(WAIT_S)
    assert process.poll() is None


def test_many_hangups_become_few_reloads(service: Service) -> None:
    service.write(sources={"a": LIVE, "b": LIVE})
    for _ in range(50):
        service.hang_up()
        time.sleep(0.002)
    service.until_result("b")
    last = service.until(lambda m: (report := report_of(m)) and report.finished == report.requested, "the end")
    reports = {report_of(m).finished for m in service.messages if report_of(m)}
    assert len(reports) < 25
    assert report_of(last).ok
    log = service.end()
    assert service.process.returncode == 0
    assert log.count("reloaded: sources.b: added") == 1
    seqs = [m.seq for m in service.messages if m.source == "a" and hasattr(m, "seq")]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_hangups_while_it_starts(daemon_process: Start, tmp_path: Path, ipc: str) -> None:
    service = Service(daemon_process, tmp_path, ipc)
    with service.subscriber:
        service.until(lambda m: isinstance(m, InfoMessage), "info")
        service.write(sources={"b": LIVE})
        for _ in range(5):
            service.hang_up()
            time.sleep(0.01)
        service.until_result("b")
        service.end()
    assert service.process.returncode == 0


def test_a_signal_to_end_comes_first(daemon_process: Start, tmp_path: Path, ipc: str) -> None:
    for delay_s in (0.0, 0.05, 0.15):
        service = Service(daemon_process, tmp_path, ipc)
        with service.subscriber:
            service.until_result("a")
            service.write(model={"path": "nanodet-g"}, sources={"a": LIVE, "b": LIVE})
            service.hang_up()
            time.sleep(delay_s)
            log = service.end()
        assert service.process.returncode == 0, log
        assert "Traceback" not in log


@pytest.mark.long
def test_untouched_sources_lose_no_frame_over_many_reloads(daemon_process: Start, tmp_path: Path, ipc: str) -> None:
    """The untouched one gives a frame whenever one is taken, so that the smallest slip would show."""
    lines = tmp_path / "out.jsonl"
    sink = {"jsonl": {"path": str(lines), "kinds": ["detections", "status"]}}
    service = Service(daemon_process, tmp_path, ipc, sinks=sink, sources={"a": {**SMALL, "max_fps": None}})
    with service.subscriber:
        service.until_result("a")
        for number in range(1, 13):
            others = {name: {**LIVE, "fps": 5 + number} for name in "bcd"[: number % 4]}
            service.write(sources={"a": {**SMALL, "max_fps": None}, **others})
            service.hang_up()
            assert report_of(service.until_reloaded(number)).ok
        service.end()
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    of_a = [line for line in found if line["kind"] == "detections" and line["source"] == "a"]
    assert [line["seq"] for line in of_a] == list(range(len(of_a)))
    assert [line["frame_id"] for line in of_a] == list(range(len(of_a)))
    for line in found:
        if line["kind"] == "status":
            assert line["captured"] == line["inferred"] + line["dropped"] + line["in_flight"]
            if line["source"] == "a":
                assert set(line["dropped_by_reason"]) <= {"shutdown"}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_memory_does_not_grow_over_a_hundred_reloads(service: Service) -> None:
    """Sources, sinks, thresholds and the backend itself, again and again."""
    fast = {**LIVE, "fps": 200}
    sizes = []
    reader = psutil.Process(service.process.pid)
    for number in range(1, 121):
        service.write(
            sources={"a": fast, **({"b": {**fast, "width": 64 + number}} if number % 3 else {})},
            model={**service.file["model"], "score": 0.3 + number / 1000},
            backend={"name": "onnxruntime", "threads": 1, "spin": number % 2 == 0},
            sinks={"jsonl": {"path": "/dev/null"}} if number % 2 else {},
        )
        service.hang_up()
        assert report_of(service.until_reloaded(number)).ok
        service.messages.clear()
        if number >= 20:
            sizes.append(reader.memory_info().rss)
    assert max(sizes[-20:]) - max(sizes[:20]) < 20e6, f"it grows: {sizes[::10]}"
    assert reader.num_threads() < 30
    assert reader.num_fds() < 60
    service.end()
    assert service.process.returncode == 0


# Whom `edgeinfer reload` sends a signal to.


@contextmanager
def impostor(endpoint: str, **changes: Any) -> Iterator[None]:
    """Publishes an `info` and a `status` as a daemon would."""
    publisher = ZmqPublisher(Options(bind=endpoint))
    here = {"source": DAEMON, "host": socket.gethostname(), "boot_id": boot_id()}
    publisher.write(msgspec.structs.replace(example("info"), **{**here, **changes}), None)
    publisher.write(msgspec.structs.replace(example("status"), source=DAEMON), None)
    done = threading.Event()

    def serve() -> None:
        while not done.wait(0.01):
            publisher.service()
        publisher.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "run"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": "elsewhere"}, "the daemon runs on elsewhere, not here"),
        ({"boot_id": "another"}, "not here"),
        ({}, "is no edgeinfer run here"),
        ({"pid": 4_194_305}, "process 4194305 is no edgeinfer run here"),
    ],
)
def test_no_other_process_is_sent_a_signal(
    cli: Cli, ipc: str, bystander: subprocess.Popen[bytes], changes: dict[str, Any], says: str
) -> None:
    with impostor(ipc, **{"pid": bystander.pid, **changes}):
        process = cli("reload", ipc)
    assert process.returncode == 69
    assert says in process.stderr
    assert bystander.poll() is None


@pytest.mark.long
def test_where_nobody_answers(cli: Cli, ipc: str) -> None:
    process = cli("reload", ipc)
    assert process.returncode == 69
    assert "no daemon answers" in process.stderr
    assert cli("reload", "nonsense").returncode == 64


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_daemon_of_somebody_else(bystander: subprocess.Popen[bytes]) -> None:
    code = (
        "import os\nfrom edgeinfer.commands.reload import _hang_up\nfrom edgeinfer.errors import UnavailableError\n"
        f"os.setuid(65534)\ntry:\n    _hang_up({bystander.pid})\nexcept UnavailableError as error:\n    print(error)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "belongs to somebody else; call edgeinfer reload as the daemon's user" in process.stdout
    assert bystander.poll() is None
