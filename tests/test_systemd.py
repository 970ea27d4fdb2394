"""What goes to systemd, heard at a real datagram socket; what goes to the journal, field by field."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.systemd import journal, notify
from edgeinfer.watchdog.crash import Crash, CrashLog
from tests.notify_socket import NotifySocket

LIBRARIES = ("systemd-python", "without the library")


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    address = tmp_path / "notify" if request.param == "path" else f"@edgeinfer-test-{os.getpid()}"
    with NotifySocket(address) as listening:
        monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
        yield listening


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == LIBRARIES[0]:
        pytest.importorskip("systemd.daemon", reason="systemd-python is not installed")
    else:
        monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    return str(request.param)


def test_every_message_arrives_as_systemd_wants_it(listener: NotifySocket, library: str) -> None:
    before = time.monotonic_ns() // 1000
    notify.extend_timeout(1.5)
    notify.ready("running on x")
    notify.status("two\nlines, rtsp://user:secret@host/1")
    notify.reloading()
    notify.watchdog()
    notify.stopping()
    extend, ready, status, reloading, *rest = listener.read(1)
    assert extend == {"EXTEND_TIMEOUT_USEC": "1500000"}
    assert ready == {"READY": "1", "STATUS": "running on x"}
    assert status == {"STATUS": "two lines, rtsp://***@host/1"}
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert rest == [{"WATCHDOG": "1"}, {"STOPPING": "1"}]


def test_a_status_is_one_short_line(listener: NotifySocket, library: str) -> None:
    notify.status("x" * 5000)
    notify.status("")
    notify.ready()
    assert listener.read(1) == [{"STATUS": "x" * 500}, {"READY": "1"}]


def test_nothing_happens_outside_systemd(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    said: list[str] = []
    monkeypatch.setattr(notify, "_notify", said.append)
    for tell in (notify.watchdog, notify.ready, notify.reloading, notify.stopping):
        tell()
    assert not notify.enabled()
    assert not said
    monkeypatch.setenv("NOTIFY_SOCKET", "x")
    notify.status("")
    assert not said, "there is nothing to say"
    notify.status("x")
    assert said == ["STATUS=x"]


def test_a_socket_that_is_gone_hurts_nobody_and_may_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for address in (str(tmp_path / "none" / "n"), "relative", f"@gone-{os.getpid()}", str(tmp_path / "n")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.watchdog()
    with NotifySocket(tmp_path / "n") as listening:
        notify.watchdog()
        assert listening.read(5) == [{"WATCHDOG": "1"}]


def test_a_full_socket_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemd.daemon", None)
    with NotifySocket(tmp_path / "n") as listening:
        monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
        for _ in range(5000):
            notify.watchdog()
        got = len(listening.read())
        assert 0 < got < 5000, "it was full"
        notify.stopping()
        assert listening.read(5)[got:] == [{"STOPPING": "1"}], "and takes more once it was read"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_sec_is_read_from_the_environment(environ: dict[str, str], seconds: float | None) -> None:
    assert notify.watchdog_s(environ) == seconds


def record(
    message: str, *args: object, level: int = logging.WARNING, extra: dict[str, str] | None = None
) -> logging.LogRecord:
    return logging.getLogger("edgeinfer.x").makeRecord(
        "edgeinfer.x", level, "f.py", 7, message, args, None, "go", extra
    )


def test_a_record_becomes_an_entry_with_its_fields_and_without_credentials() -> None:
    sent: list[tuple[str, dict[str, str]]] = []
    handler = journal.JournalHandler(lambda message, **fields: sent.append((message, fields)))
    url = "rtsp://user:secret@host/1"
    handler.emit(record("%s is late", url, extra=journal.fields("front", "timeout")))
    ((message, fields),) = sent
    assert message == "rtsp://***@host/1 is late"
    assert fields["EDGEINFER_SOURCE"] == "front"
    assert fields["EDGEINFER_EVENT"] == "timeout"
    assert fields["PRIORITY"] == "4"
    assert fields["SYSLOG_IDENTIFIER"] == "edgeinfer"
    assert "secret" not in str(sent)
    handler.emit(record("plain", level=logging.DEBUG))
    assert sent[1][1]["PRIORITY"] == "7"
    assert "EDGEINFER_SOURCE" not in sent[1][1]


def test_without_the_library_lines_carry_their_priority() -> None:
    assert journal.PriorityFormatter().format(record("x", level=logging.ERROR)) == "<3>x"


def test_a_traceback_in_the_journal_holds_no_credentials() -> None:
    try:
        raise OSError("can't open rtsp://user:secret@host/1")
    except OSError:
        found = logging.getLogger("x").makeRecord("x", 40, "f.py", 1, "failed", (), sys.exc_info())
    assert "Traceback" in journal.text_of(found)
    assert "secret" not in journal.text_of(found)
    assert all(line.startswith("<3>") for line in journal.PriorityFormatter().format(found).splitlines())


def test_the_journal_is_recognised_by_what_standard_error_is() -> None:
    code = (
        "import os, sys\nfrom edgeinfer.systemd import journal\n"
        "s = os.fstat(2)\nprint(journal.is_stderr({'JOURNAL_STREAM': f'{s.st_dev}:{s.st_ino}'}),"
        " journal.is_stderr({'JOURNAL_STREAM': '1:2'}), journal.is_stderr({}))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["True", "False", "False"]


# Credentials

secret = st.text("abcdefgh0123456789!$%&*+-_=~/:@", min_size=6, max_size=30).map(lambda text: f"S{text}T")


@pytest.mark.slow
@given(secret=secret, host=st.sampled_from(["cam", "10.0.0.1", "[::1]"]), where=st.sampled_from(["", " ", "\n", "'"]))
def test_no_credential_leaves_by_any_of_these_ways(secret: str, host: str, where: str) -> None:
    text = f"can't open {where}rtsp://user:{secret}@{host}/1?x=1{where} now"
    sent: list[object] = []
    handler = journal.JournalHandler(lambda message, **fields: sent.append((message, fields)))
    try:
        raise OSError(text)
    except OSError as error:
        handler.emit(record("%s: %s", text, error, extra=journal.fields("front", text)))
        found = logging.getLogger("x").makeRecord("x", 40, "f.py", 1, text, (), sys.exc_info())
    handler.emit(found)
    shown = [str(sent), journal.PriorityFormatter().format(found), *notify._status(text)]
    with tempfile.TemporaryDirectory() as folder:
        CrashLog(Path(folder)).write(Crash(code="x", text=text, stacks=text))
        shown.append((Path(folder) / "last_crash.json").read_text())
    for output in shown:
        assert secret not in output
        assert secret not in output.replace("\\\\", "\\").replace('\\"', '"')
