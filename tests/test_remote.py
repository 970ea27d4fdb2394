"""A daemon as `status`, `top`, `reload` and `check` see it, from messages that are written by hand."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from edgeinfer import cli
from edgeinfer.commands import _overview, _remote, reload, status, top
from edgeinfer.commands._remote import RemoteDaemon
from edgeinfer.config.card import MODELS
from edgeinfer.errors import ConfigError, EdgeinferError, UnavailableError
from edgeinfer.messages import DAEMON, InfoMessage, Message, Reason, ReloadReport, StatusMessage
from edgeinfer.watchdog.crash import boot_id
from tests.test_messages import example

INFO = example("info")
STATUS = example("status")
assert isinstance(INFO, InfoMessage)
assert isinstance(STATUS, StatusMessage)
HERE = structs.replace(
    INFO, source=DAEMON, sources=["a", "b"], backend="b", host=socket.gethostname(), boot_id=boot_id(), pid=os.getpid()
)


def told(source: str = DAEMON, **changes: Any) -> StatusMessage:
    assert isinstance(STATUS, StatusMessage)
    return structs.replace(STATUS, **{"source": source, "state": "running", "reason": None, **changes})


def report(requested: int, finished: int, **more: Any) -> StatusMessage:
    return told(reload=ReloadReport(requested=requested, finished=finished, **more))


class Scripted:
    """A subscriber that hears these messages, and then nothing."""

    def __init__(self, *messages: Message, refused: str = "") -> None:
        self.messages = list(messages)
        self.refused = refused
        self.asked: dict[str, Any] = {}

    def __call__(self, endpoint: str, **options: Any) -> Scripted:
        self.asked = {"endpoint": endpoint, **options}
        return self

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None: ...

    def receive(self, timeout_s: float | None = None) -> Message | None:
        return self.messages.pop(0) if self.messages else None


# --- what is heard ---


def test_asking_ends_once_everything_has_been_heard() -> None:
    more = told("late")
    subscriber = Scripted(HERE, told("a"), told(), told("b"), more)
    overview = _remote.ask(subscriber, 60)  # type: ignore[arg-type]
    assert overview.complete
    assert subscriber.messages == [more]
    assert set(overview.sources) == {"a", "b"}


@pytest.mark.parametrize("missing", range(4))
def test_an_overview_needs_all_of_it(missing: int) -> None:
    messages: list[Message] = [HERE, told(), told("a"), told("b")]
    del messages[missing]
    overview = RemoteDaemon()
    for message in messages:
        overview.add(message)
    assert not overview.complete


def test_asking_ends_with_patience_or_at_a_refusal() -> None:
    assert not _remote.ask(Scripted(), 0.05).complete  # type: ignore[arg-type]
    assert not _remote.ask(Scripted(HERE, refused="no"), 3600).complete  # type: ignore[arg-type]


def test_a_source_that_info_does_not_name_any_more_is_gone() -> None:
    overview = RemoteDaemon()
    for message in (HERE, told(), told("a"), told("b"), structs.replace(HERE, sources=["b"])):
        overview.add(message)
    assert set(overview.sources) == {"b"}
    assert overview.daemon is not None, "it is the same daemon"
    assert overview.complete


@pytest.mark.parametrize(
    ("state", "good"),
    [("running", True), ("ended", True), *((s, False) for s in ("starting", "stalled", "reconnecting", "failed"))],
)
def test_one_source_that_is_not_well_is_enough(state: str, good: bool) -> None:
    overview = RemoteDaemon()
    for message in (HERE, told(), told("a"), told("b", state=state)):
        overview.add(message)
    assert overview.good == good


# --- the commands ---


def hear(monkeypatch: pytest.MonkeyPatch, module: Any, *messages: Message, refused: str = "") -> Scripted:
    subscriber = Scripted(*messages, refused=refused)
    monkeypatch.setattr(module, "Subscriber", subscriber)
    for name in ("PATIENCE_S", "ANSWER_S"):
        monkeypatch.setattr(module, name, 0.05, raising=False)
    return subscriber


@pytest.mark.parametrize("command", ["status", "top", "reload"])
def test_keys_and_endpoint_reach_the_subscriber(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    module = {"status": status, "top": top, "reload": reload}[command]
    for args, endpoint in ((["tcp://127.0.0.1:7"], "tcp://127.0.0.1:7"), ([], "tcp://127.0.0.1:5555")):
        subscriber = hear(monkeypatch, module)
        with pytest.raises(UnavailableError, match=f"no daemon answers at {endpoint}"):
            cli.run([command, *args, "--server-key", "s", "--key", "k"])
        assert (subscriber.asked["server_key"], subscriber.asked["key"]) == ("s", "k")
        assert (subscriber.asked["endpoint"], set(subscriber.asked["kinds"])) == (endpoint, {"info", "status"})
    hear(monkeypatch, module, refused="not you")
    with pytest.raises(UnavailableError, match="not you"):
        cli.run([command])


@pytest.mark.parametrize(("state", "code"), [("running", 0), ("stalled", 75)])
def test_status_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    hear(monkeypatch, status, HERE, told(), told("a"), told("b", state=state))
    assert cli.run(["status", "--json"]) == code
    whole = json.loads(capsys.readouterr().out)
    assert whole["ok"] == (code == 0)
    assert whole["info"]["pid"] == os.getpid()
    assert whole["daemon"]["source"] == DAEMON
    assert {name: found["state"] for name, found in whole["sources"].items()} == {"a": "running", "b": state}


def test_status_and_top_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lost = told("b", state="failed", reason=Reason("timeout", "no frame"), dropped_by_reason={"overload": 3, "x": 0})
    for module, command in ((status, ["status"]), (top, ["top"])):
        hear(monkeypatch, module, HERE, told(reason=Reason("engine-building", "Building 4%")), told("a"), lost)
        assert cli.run(command) == (75 if module is status else 0)
        page = capsys.readouterr().out
        for part in (f"on {socket.gethostname()}, PID {os.getpid()}", "m@1 on b", "engine-building: Building 4%"):
            assert part in page
        (row,) = (line for line in page.splitlines() if line.startswith("b "))
        assert row.split() == ["b", "failed", "30.0", "0", "0", "3", "overload", "timeout:", "no", "frame"]


def test_how_long_a_daemon_has_been_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000 * 1_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    for seconds, text in ((0, "0 min 0 s"), (61, "1 min 1 s"), (3599, "59 min 59 s"), (3600 * 26 + 120, "26 h 2 min")):
        info = structs.replace(HERE, t_start_ns=now - seconds * 1_000_000_000)
        assert f", up {text}\n" in _overview.header(RemoteDaemon(info=info)).plain
    assert "up 0 min 0 s" in _overview.header(RemoteDaemon(info=structs.replace(HERE, t_start_ns=now * 2))).plain
    assert "nothing yet: the model is being loaded" in (
        _overview.header(RemoteDaemon(info=structs.replace(HERE, backend=None))).plain
    )
    assert _overview.header(RemoteDaemon()).plain == "waiting for the daemon"


# --- reload ---


@pytest.fixture
def hung_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that were sent; this very process passes for a daemon."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(reload, "_is_edgeinfer", lambda pid: pid == os.getpid())
    return sent


def test_a_reload_says_what_has_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hung_up: list[tuple[int, int]]
) -> None:
    building = told(reason=Reason("engine-building", "Building 4%"), reload=ReloadReport(requested=3, finished=2))
    done = report(3, 3, ok=True, changes=("a: added", "b: removed"))
    hear(monkeypatch, reload, report(2, 2, ok=False, text="old"), HERE, building, building, HERE, told(), done)
    assert cli.run(["reload"]) == 0
    assert hung_up == [(os.getpid(), signal.SIGHUP)]
    out, err = capsys.readouterr()
    assert out.splitlines() == ["a: added", "b: removed"]
    assert err == "edgeinfer: Building 4%\n", "once"


def test_a_reload_without_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hung_up: list[tuple[int, int]]
) -> None:
    hear(monkeypatch, reload, HERE, told(), report(1, 0), report(1, 1, ok=True))
    assert cli.run(["reload"]) == 0
    assert capsys.readouterr().out == "nothing has changed\n"


@pytest.mark.parametrize(
    ("messages", "kind", "says"),
    [
        ([report(1, 1, ok=False, text="c.yaml: x")], ConfigError, "not reloaded: c.yaml: x"),
        ([], UnavailableError, "ended, or fell silent, before it had reloaded"),
        ([told(state="ended")], UnavailableError, "ended, or fell silent"),
        ([structs.replace(told(), session="other")], UnavailableError, "has been started anew meanwhile"),
    ],
)
def test_a_reload_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    hung_up: list[tuple[int, int]],
    messages: list[Message],
    kind: type[EdgeinferError],
    says: str,
) -> None:
    hear(monkeypatch, reload, HERE, told(), *messages)
    with pytest.raises(kind, match=says):
        cli.run(["reload"])
    assert len(hung_up) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": "elsewhere"}, "the daemon runs on elsewhere, not here"),
        ({"boot_id": "another"}, "not here"),
        ({"pid": 1}, "process 1 is no edgeinfer run here"),
    ],
)
def test_no_process_but_the_daemon_gets_a_signal(
    monkeypatch: pytest.MonkeyPatch, hung_up: list[tuple[int, int]], changes: dict[str, Any], says: str
) -> None:
    hear(monkeypatch, reload, structs.replace(HERE, **changes), told())
    with pytest.raises(UnavailableError, match=says):
        cli.run(["reload"])
    assert not hung_up


@pytest.mark.parametrize(
    ("error", "says"), [(PermissionError(), "belongs to somebody else"), (ProcessLookupError(), "has just ended")]
)
def test_a_signal_that_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, hung_up: list[tuple[int, int]], error: OSError, says: str
) -> None:
    def fail(pid: int, number: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", fail)
    hear(monkeypatch, reload, HERE, told())
    with pytest.raises(UnavailableError, match=says):
        cli.run(["reload"])


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["/usr/bin/python3", "/usr/bin/edgeinfer", "run", "--config", "x"], True),
        (["python", "/x/edgeinfer/__main__.py", "run"], True),
        (["/usr/bin/edgeinfer", "listen"], False),
        (["/usr/bin/vim", "run"], False),
        (["/opt/edgeinfer-helper", "run"], False),
        ([], False),
    ],
)
def test_which_process_is_a_daemon(monkeypatch: pytest.MonkeyPatch, words: list[str], ours: bool) -> None:
    line = b"".join(word.encode() + b"\0" for word in words)
    monkeypatch.setattr(Path, "read_bytes", lambda path: line)
    assert reload._is_edgeinfer(1) == ours


def test_a_process_that_is_not_there() -> None:
    assert not reload._is_edgeinfer(2**22 + 1)


# --- check ---

CURVE = "curve: {secret_key: none.key, allow: none}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("publish: {bind: 'tcp://0.0.0.0:1'}", "publish.bind: .* other machines"),
        ("http: {bind: '0.0.0.0:1'}", "http.bind: .* other machines"),
        ("http: {bind: 'x'}", "http.bind: 'x' is not an address"),
        (f"publish: {{{CURVE}}}", "none.key: No such file"),
        ("model: none.onnx", "none.onnx: no such file"),
        ("model: {path: nanodet-g, sha256: '" + "0" * 64 + "'}", "model.sha256"),
        ("model: {path: nanodet-g, card: none.yaml}", "none.yaml: No such file"),
    ],
)
def test_check_finds_what_a_run_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"sources: {{a: 'demo:'}}\n{text}\n")
    with pytest.raises(EdgeinferError, match=says):
        cli.run(["check", "c.yaml"])


def test_check_looks_at_the_decoder_of_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.plan").touch()
    card = (MODELS / "nanodet-g.yaml").read_text()
    lines = [line for line in card.splitlines() if not line.startswith(("file:", "sha256:"))]
    whole = "\n".join(["file: own.plan", *lines]).replace("name: boxes_scores", "name: boxes_score")
    (tmp_path / "own.yaml").write_text(whole)
    (tmp_path / "c.yaml").write_text("model: own.plan\n")
    with pytest.raises(ConfigError, match=r"decoder\.name: no decoder called 'boxes_score'; did you mean boxes_scores"):
        cli.run(["check", "c.yaml"])


def test_check_says_what_would_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run: Callable[[], int] = lambda: cli.run(["check", "c.yaml"])  # noqa: E731
    (tmp_path / "c.yaml").write_text("sources: {a: 'demo:', b: '0'}\nhttp: {bind: '0.0.0.0:1', insecure: true}\n")
    assert run() == 0
    assert capsys.readouterr().out == "c.yaml: ok: nanodet-g@e747d49e on auto, sources a, b\n"
    (tmp_path / "c.yaml").write_text("publish: {bind: 'tcp://0.0.0.0:1', insecure: true}\nbackend: onnxruntime\n")
    assert run() == 0
    assert capsys.readouterr().out == "c.yaml: ok: nanodet-g@e747d49e on onnxruntime, sources none\n"
