"""The API of a daemon that is made up, and of a real one."""

from __future__ import annotations

import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from edgeinfer.config.card import load_model
from edgeinfer.config.settings import HttpConfig, TlsConfig
from edgeinfer.daemon.instruments import page_address
from edgeinfer.engine.store.cache import Cache
from edgeinfer.errors import ConfigError, UnavailableError
from edgeinfer.messages import DAEMON, LastCrash, MachineVitals, Reason
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SinkSnapshot
from edgeinfer.web import opening
from edgeinfer.web.binding import check_http
from edgeinfer.web.site.app import STATIC
from edgeinfer.web.site.openapi import OPERATIONS, description
from edgeinfer.web.viewing.latched import Latched
from edgeinfer.web.viewing.model import model_view
from tests.conftest import Cli
from tests.engine.test_cache import put
from tests.test_messages import example
from tests.test_run import one_error_line
from tests.test_zmq import Start, wait_for
from tests.web.serving import Everybody, ask, serving, snapshot, views
from tests.web.test_chronicle import status

LOOPBACK, EVERYWHERE = "127.0.0.1:9108", "0.0.0.0:9108"
FILE = "web.tokens"
TLS = TlsConfig(cert="cert.pem", key="key.pem")


@pytest.mark.parametrize(
    ("http", "says"),
    [
        (HttpConfig(token=FILE), r"http\.token: only the page has it.*web: true"),
        (HttpConfig(tls=TLS), r"http\.tls: only the page has it.*web: true"),
        (HttpConfig(web=True, bind=EVERYWHERE), r"other machines.*token: FILE"),
        (HttpConfig(web=True, bind=EVERYWHERE, insecure=True), r"other machines.*token: FILE"),
        (HttpConfig(web=True, bind=EVERYWHERE, token=FILE), r"other machines.*tls: \{cert: FILE, key: FILE\}"),
        (HttpConfig(web=True, bind=EVERYWHERE, tls=TLS), r"other machines.*token: FILE"),
        (HttpConfig(web=True, bind="nowhere"), "is not an address"),
        (HttpConfig(bind=EVERYWHERE), "insecure: true"),
    ],
)
def test_what_others_can_reach_must_be_protected(http: HttpConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_http(http)


@pytest.mark.parametrize(
    ("http", "host"),
    [
        (HttpConfig(web=True), "127.0.0.1"),
        (HttpConfig(web=True, token=FILE, tls=TLS), "127.0.0.1"),
        (HttpConfig(web=True, bind=EVERYWHERE, token=FILE, tls=TLS), "0.0.0.0"),  # noqa: S104
        (HttpConfig(bind=EVERYWHERE, insecure=True), "0.0.0.0"),  # noqa: S104
    ],
)
def test_what_is_protected_or_reached_by_nobody_else(http: HttpConfig, host: str) -> None:
    assert check_http(http) == (host, 9108)


def test_check_says_it_before_anything_runs(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: {a: 'demo:'}\nhttp: {web: true, bind: '0.0.0.0:9108'}\n")
    process = cli("check", "c.yaml")
    assert process.returncode == 78
    assert "write token: FILE under http" in one_error_line(process)


def test_a_missing_library_is_named_with_the_line_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgeinfer.web.site.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as if it were not there
    with pytest.raises(UnavailableError, match=r"needs 'uvicorn'.*pip install 'edgeinfer\[web\]'"):
        opening.open_site("127.0.0.1", 0, views())


@pytest.mark.parametrize(
    ("host", "secure", "address"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:9108/"),
        ("::1", True, "https://[::1]:9108/"),
        ("0.0.0.0", True, f"https://{socket.gethostname()}:9108/"),  # noqa: S104
    ],
)
def test_the_address_that_is_printed(host: str, secure: bool, address: str) -> None:
    assert page_address(host, 9108, secure) == address


def valid(answer: Any, name: str) -> bool:
    """Whether an answer is what the description says. Raises what jsonschema raises."""
    whole = description()
    schema = {"$ref": f"#/components/schemas/{name}", "components": whole["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)
    return True


def latched(*messages: Any) -> Latched:
    kept = Latched()
    for message in messages:
        kept.write(message, None)
    return kept


def whole() -> DaemonSnapshot:
    return snapshot(
        detail="batches up to 4",
        engine_key="ab" * 32,
        versions={"tensorrt": "10.3"},
        serving_s=12.5,
        latency_ms={"infer": {"p50": 1.0, "p95": 2.0, "p99": 3.0}},
        rate=0.5,
        subscribers=2,
        machine=MachineVitals(temperatures_c={"cpu": 51.0}),
        sinks={"publish": SinkSnapshot("full", 3)},
    )


def test_the_status_is_the_daemons() -> None:
    crash = LastCrash(code="stalled", text="inference stood still", stage="inference", version="1", t_ns=1)
    own = status(DAEMON, state="running", reason=Reason("throttled", "hot"), last_crash=crash)
    with serving(views(picture=whole, latched=latched(own))) as site:
        found = ask(site, "/api/v1/status").json
    assert valid(found, "Status")
    assert found["role"] == "local"
    assert found["daemon"]["reason"] == {"code": "throttled", "text": "hot"}
    assert found["daemon"]["sinks"] == {"publish": {"ok": False, "lost": 3, "text": "full"}}
    assert found["daemon"]["machine"]["temperatures_c"] == {"cpu": 51.0}
    assert found["last_crash"]["text"] == "inference stood still"
    assert found["sources"]["a"] == {
        "state": "running",
        "reason": None,
        "captured": 12,
        "inferred": 10,
        "in_flight": 0,
        "dropped": 2,
        "dropped_by_reason": {"overload": 2},
        "fps": 9.88,
        "stalls": 0,
        "reconnects": 0,
        "decoder": {"name": "h264", "why": "it is there"},
        "kind": None,
    }


def test_a_daemon_that_is_starting_has_a_status_and_no_info() -> None:
    with serving(views(picture=lambda: snapshot(backend=""))) as site:
        found = ask(site, "/api/v1/status").json
        assert valid(found, "Status")
        assert found["daemon"]["state"] == "starting"
        early = ask(site, "/api/v1/info")
        assert (early.status, early.error, early.headers["retry-after"]) == (503, "starting", "1")


def test_info_is_the_latched_message() -> None:
    info = example("info")
    with serving(views(latched=latched(info))) as site:
        assert ask(site, "/api/v1/info").json == msgspec.json.decode(msgspec.json.encode(info))


def test_what_a_source_is_comes_with_its_results_and_goes_with_it() -> None:
    kept = latched(status("a"), status(DAEMON))
    assert list(kept.sources) == ["a"]
    assert kept.daemon is not None
    kept.forget("a")
    assert kept.sources == {}


def test_a_file_is_shown_only_to_an_admin_as_it_is() -> None:
    with serving() as site:
        assert valid(ask(site, "/api/v1/config").json, "ConfigView")
        refused = ask(site, "/api/v1/config?text=1")
        assert (refused.status, refused.error) == (403, "forbidden")
        assert "edgeinfer web token new" in refused.json["error"]["hint"]
    with serving(views(access=Everybody("admin"))) as site:
        assert ask(site, "/api/v1/config?text=1").status == 200


def test_the_model_without_an_engine(tmp_path: Path) -> None:
    model = load_model("nanodet-g")
    unused = Reason("tensorrt-unused", "the driver is too old")
    view = model_view(model, snapshot(unused=unused), tmp_path)
    assert (view.id, view.engine, view.notes) == (model.id, None, ["the driver is too old"])
    assert valid(msgspec.json.decode(msgspec.json.encode(view)), "ModelView")
    assert len(view.labels) == 80


def test_an_engine_that_is_gone_from_the_cache(tmp_path: Path) -> None:
    view = model_view(load_model("nanodet-g"), snapshot(engine_key="ab" * 32), tmp_path)
    assert view.engine is not None
    assert view.engine.explain == ["engine abababababab is not in the cache: the next start builds one"]


def test_an_engine_in_words(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    item = put(cache)
    view = model_view(load_model("nanodet-g"), snapshot(engine_key=item.key), cache.root)
    assert view.engine is not None
    assert view.engine.manifest is not None
    assert view.engine.manifest["key"] == item.key
    assert "log" not in view.engine.manifest["build"]
    assert valid(msgspec.json.decode(msgspec.json.encode(view)), "ModelView")
    assert any("against ONNX Runtime" in line for line in view.engine.explain)
    assert view.engine.explain[-1].startswith("the next start uses it again")


GETS = {"status": "Status", "info": "InfoMessage", "model": "ModelView", "history": "Columns", "events": "Events"}
GETS |= {"config": "ConfigView"}


def page_of(daemon: subprocess.Popen[str]) -> str:
    assert daemon.stdout is not None
    line = daemon.stdout.readline()
    assert line.startswith("edgeinfer: page http://127.0.0.1:"), line
    return line.rpartition(":")[2].strip().strip("/")


class Remote:
    """A site in another process."""

    def __init__(self, port: str) -> None:
        self.port = int(port)


def test_a_real_daemon_answers_as_described(daemon_process: Start, ipc: str) -> None:
    daemon = daemon_process("run", "--source", "cam=demo:", "--bind", ipc, "--web", "--set", "http.bind=127.0.0.1:0")
    site: Any = Remote(page_of(daemon))
    wait_for(lambda: ask(site, "/readyz").status == 200, "readiness")
    wait_for(lambda: len(ask(site, "/api/v1/history").json["t_ns"]) >= 2, "two samples")
    for path, name in GETS.items():
        found = ask(site, f"/api/v1/{path}")
        assert found.status == 200, found.body
        assert valid(found.json, name)
    assert {one.path for one in OPERATIONS if one.method == "get"} >= {f"/api/v1/{path}" for path in GETS}
    shown = ask(site, "/api/v1/status").json
    assert (shown["daemon"]["state"], shown["sources"]["cam"]["state"]) == ("running", "running")
    assert shown["sources"]["cam"]["kind"] == "live"
    assert shown["session"] == ask(site, "/api/v1/info").json["session"]
    kinds = [event["code"] for event in ask(site, "/api/v1/events").json["events"]]
    assert {"starting", "running"} <= set(kinds)
    history = ask(site, "/api/v1/history").json
    assert history["rss_bytes"][-1] > 1 << 20
    newer = ask(site, f"/api/v1/history?since={history['t_ns'][0]}").json["t_ns"]
    assert newer[0] == history["t_ns"][1]
    daemon.terminate()
    assert daemon.wait(20) == 0


def test_a_daemon_ends_at_once_with_people_looking(daemon_process: Start, ipc: str) -> None:
    daemon = daemon_process("run", "--source", "cam=demo:", "--bind", ipc, "--web", "--set", "http.bind=127.0.0.1:0")
    port = int(page_of(daemon))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as listening,
        socket.create_connection(("127.0.0.1", port), timeout=20) as silent,
    ):
        listening.sendall(b"GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert listening.recv(12) == b"HTTP/1.1 200"
        daemon.terminate()
        assert daemon.wait(20) == 0
        assert silent.recv(1) == b""


def test_json_lines_have_standard_output_for_themselves(cli: Cli) -> None:
    process = cli(
        "run", "--source", "demo:", "--frames", "2", "--jsonl", "-", "--web",
        "--set", "http.bind=127.0.0.1:0", "--set", "publish=null",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "edgeinfer: page http://127.0.0.1:" in process.stderr
    assert all(line.startswith("{") for line in process.stdout.splitlines())


def test_without_a_page_no_web_library_is_loaded(cli: Cli) -> None:
    code = (
        "import sys\nfrom edgeinfer.cli import run\n"
        "try:\n    run(['run', '--source', 'demo:', '--frames', '2', '--set', 'publish=null',"
        " '--set', 'http.bind=127.0.0.1:0'])\n"
        "finally:\n    print({'starlette', 'uvicorn', 'websockets', 'h11', 'anyio', 'asyncio'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stdout.splitlines()[-1] == "set()", process.stderr


def test_two_pages_on_one_port(daemon_process: Start, cli: Cli, ipc: str) -> None:
    daemon = daemon_process("run", "--source", "cam=demo:", "--bind", ipc, "--web", "--set", "http.bind=127.0.0.1:0")
    port = page_of(daemon)
    second = cli("run", "--source", "demo:", "--set", "publish=null", "--web", "--set", f"http.bind=127.0.0.1:{port}")
    assert second.returncode == 75
    assert "in use by another program" in one_error_line(second)


@pytest.mark.slow
def test_the_page_comes_with_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(STATIC.parents[2]).as_posix() for path in STATIC.rglob("*") if path.is_file()}
    assert f"{STATIC.relative_to(STATIC.parents[2]).as_posix()}/index.html" in files
    assert files <= names
