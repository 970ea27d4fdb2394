"""Credentials of camera URLs appear in no output, whatever characters they have: everything that the program writes
is searched for them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.client import Subscriber
from edgeinfer.config.settings import load_config
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.redaction import redact, remember
from tests.conftest import Cli
from tests.test_zmq import Start

USERS = ["S3user0Q", "S3us%20er1Q", "S3ü2Q"]
PASSWORDS = ["S3pass0Q", "S3p/a@s?s1Q", "S3p'a\"s<s>2Q", "S3p%40ss3Q", "S3p&a=s#s4Q", "S3p a s s5Q"]
URLS = [f"rtsp://{USERS[i % 3]}:{password}@127.0.0.1:9/main?token=S3tok{i}Q" for i, password in enumerate(PASSWORDS)]
PLUGIN = """
import traceback
from msgspec import Struct


class Options(Struct):
    pass


def open(uri, options):
    raise RuntimeError(f"can't open {uri}: {uri.split('://')[1]}")
"""


def assert_clean(text: str, where: str) -> None:
    for secret in (*PASSWORDS, *(f"S3tok{i}Q" for i in range(len(URLS)))):
        assert secret not in text, f"{where}: {secret}"
    for secret in USERS:
        assert secret not in text, f"{where}: {secret}"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Six cameras that can't be opened, by a plugin that quotes the URL in its error."""
    (tmp_path / "leaky").mkdir()
    (tmp_path / "leaky" / "__init__.py").touch()
    (tmp_path / "leaky" / "cam.py").write_text(PLUGIN)
    sources = {f"c{i}": url.replace("rtsp://", "leaky.cam://") for i, url in enumerate(URLS)}
    (tmp_path / "c.yaml").write_text(json.dumps({"sources": {"good": "demo:", **sources}}))
    return tmp_path / "c.yaml"


def test_no_output_of_a_run_shows_them(daemon_process: Start, cli: Cli, config: Path, ipc: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = daemon_process(
        "run", "--config", str(config), "--bind", ipc, "--verbose",
        "--jsonl", "out.jsonl", "--set", 'sinks.jsonl.kinds=["status", "info", "detections"]',
        "--set", f"http.bind=127.0.0.1:{port}",
    )  # fmt: skip
    failed: set[str] = set()
    with Subscriber(ipc, kinds=("status", "info"), timeout_s=60) as subscriber:
        for message in subscriber:
            assert_clean(repr(message), "message")
            if getattr(message, "state", "") == "failed":
                failed.add(message.source)
            if len(failed) == len(URLS):
                break
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for page in ("/metrics", "/healthz", "/readyz"):
        connection.request("GET", page)
        assert_clean(connection.getresponse().read().decode(), page)
        connection.close()
    for args in (("status", ipc), ("status", ipc, "--json"), ("top", ipc), ("listen", ipc, "--count", "4")):
        shown = cli(*args)
        assert shown.stdout
        assert_clean(shown.stdout + shown.stderr, args[0])
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert "can't open" in err, "the plugin's error is told"
    assert_clean(out, "standard output")
    assert_clean(err, "log")
    assert_clean((config.parent / "out.jsonl").read_text(), "JSON lines")


@pytest.mark.long
def test_no_error_of_a_command_shows_them(cli: Cli, config: Path, tmp_path: Path) -> None:
    assert_clean((checked := cli("check", str(config), "--verbose")).stdout + checked.stderr, "check")
    for number, url in enumerate(URLS):
        (tmp_path / "bad.yaml").write_text(json.dumps({"sources": {"a": {"uri": url, "fsp": url}, "b": [url]}}))
        for args in (
            ("check", "bad.yaml", "--verbose"),
            ("run", "--source", url.replace("rtsp:", "rtps:"), "--verbose"),
            ("run", "--source", f"a=none.mp4?{url}", "--set", "publish=null", "--verbose"),
            ("run", "--set", f"sources.a.{number}={json.dumps(url)}", "--verbose"),
        ):
            process = cli(*args)
            assert process.returncode != 0
            assert_clean(process.stdout + process.stderr, " ".join(args[:2]))


def test_the_doctors_bundle_does_not_show_them(tmp_path: Path) -> None:
    environment = {**os.environ, "CAMERA_PASSWORD": PASSWORDS[0], "CAMERA": URLS[3], "PYTHONPATH": f"/x:{URLS[0]}"}
    command = [sys.executable, "-m", "edgeinfer", "doctor", "--bundle", str(tmp_path / "b.json"), "--json"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert_clean(process.stdout + process.stderr + (tmp_path / "b.json").read_text(), "bundle")


printing = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=4, max_size=24).map(lambda t: f"S3{t}Q")


@pytest.mark.slow
@given(printing.filter(lambda user: ":" not in user), printing, st.text(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_configuration_error_shows_them(tmp_path: Path, user: str, password: str, key: str) -> None:
    url = f"rtsp://{user}:{password}@camera/x"
    for data in ([url], {"sources": {"a": {"uri": url, key: url}}}, {"publish": {"bind": url}}, {key: url}):
        (tmp_path / "c.yaml").write_text(json.dumps(data))
        try:
            text = repr(load_config(tmp_path / "c.yaml").sources)
        except EdgeinferError as error:
            text = f"{error}"
        assert password not in text
        assert user not in text


@given(printing.filter(lambda user: ":" not in user), printing)
def test_what_is_remembered_is_found_without_its_url(user: str, password: str) -> None:
    remember(f"rtsp://{user}:{password}@camera/x")
    assert password not in redact(f"401 Unauthorized for {user} with {password}!")
