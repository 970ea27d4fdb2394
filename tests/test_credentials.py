"""Credentials of camera URLs appear in no output, whatever characters they have: everything that the program writes
is searched for them."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.client import Subscriber
from edgeinfer.config.settings import load_config
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.credentials import is_secret, secrets_in_lines
from edgeinfer.guard.redaction import redact, remember
from edgeinfer.sources._credentials import account
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


@pytest.mark.slow
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


BROKEN = [
    "sources: [{{uri: 'rtsp://camera/x', password: {0}}}]",
    "sources: {{a: {{uri: 'rtsp://camera/x', password: !{0}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password: *{0}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password: &{0}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password: [{1}]}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password: {{{1}: {1}}}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password: {1}, password: {1}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', passwort: {1}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password {0}}}}}",
    "sources: {{a: {{uri: 'rtsp://camera/x', password={0}}}}}",
    "sources:\n  a:\n    uri: rtsp://camera/x\n    password {0}\n",
    "sources:\n  a:\n    uri: rtsp://camera/x\n    password: {1}: {1}\n",
    "sources:\n  a:\n    uri: rtsp://camera/x\n    password: |{0}\n      {0}\n",
    "sources:\n  a:\n    uri: rtsp://camera/x\n    password: {1}\n   fps: 3\n",
    "sources:\n\ta: {0}\n",
    "sources: {{a: {{password: {1}}}}}",
    "sources: {{a: [{1}, 'rtsp://u:{0}@h/x']}}",
    "sources: {{a: 'rtspx://u:{0}@h/x'}}",
    "sources: {{a: 'rtspx://h/user=u_password={0}_channel=1_stream=0.sdp'}}",
    "sources: {{a: 'nosuch.mp4?loginuse=u&loginpas={0}', b: 3}}",
    "publish: {{bind: 'tcp://u:{0}@h'}}\nhttp: {{bind: {1}, token: {1}, password: {1}}}",
    "model: {{path: x, api_key: {1}}}",
    "password: {1}",
    "%{0}\nsources: {{}}",
    'sources: "{0}',
    'sources: {{a: "\\{0}"}}',
    "{0}: {0}: {0}",
    "sources: *{0}",
    "sources: !{0} x",
    "sources: {{a: &{0} x, b: &{0} y}}",
    "sources: !<{0}> x",
    "sources: {{a: {{uri: 'demo:', {1}: 1, {1}: 2}}}}",
]
"""A configuration with a slip in it. {0} is the password as it is, {1} quoted as JSON."""


@pytest.mark.parametrize("form", BROKEN)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(
    st.text(st.characters(codec="ascii", exclude_characters="\x7f"), min_size=3, max_size=16).map(lambda t: f"Q7{t}x")
)
def test_no_error_quotes_what_it_could_not_read(tmp_path: Path, form: str, password: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(form.format(password, json.dumps(password)))
    try:
        said = repr(load_config(path))
    except EdgeinferError as error:
        said = str(error)
        tail = "".join(traceback.format_exception(error))
        assert password not in redact(tail.rpartition("\n")[2])
    assert password not in said.replace(str(path), "")


@pytest.mark.parametrize(
    "spelled", ["'geheim77 x'", '"\\x67eheim77 x"', "!!str geheim77 x", ">-\n      geheim77\n      x", "&p geheim77 x"]
)
def test_a_configuration_tells_its_secrets_however_yaml_spells_them(tmp_path: Path, spelled: str) -> None:
    text = f"sources:\n  a:\n    uri: rtsp://camera/x\n    password: {spelled}\n    fps: {{}}\n"
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(EdgeinferError, match=r"sources\.a\.fps"):
        load_config(tmp_path / "c.yaml")
    assert redact("401 for geheim77 x") == "401 for ***"


def test_what_the_environment_and_a_file_tell_is_a_secret_too(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("fromfile7\n")
    environment = {"CAMERA": "fromenv7", "WHOLE": "admin:whole7@"}
    account("rtsp://camera/x", "admin", None, str(tmp_path / "p"), environment)
    account("rtsp://camera/x", "admin", "${env:CAMERA}", None, environment)
    account("rtsp://${env:WHOLE}camera/x", None, None, None, environment)
    spelled = [base64.b64encode(f"admin:{secret}".encode()).decode() for secret in ("fromfile7", "fromenv7", "whole7")]
    for secret in ("fromfile7", "fromenv7", "whole7", *spelled):
        assert secret.rstrip("=") not in redact(f"Authorization failed with {secret}, {secret}")


def test_a_broken_file_of_a_running_daemon_shows_none(
    daemon_process: Start, cli: Cli, tmp_path: Path, ipc: str
) -> None:
    """A reload's failure is in the daemon's status, which everybody gets who subscribes."""
    path = tmp_path / "c.yaml"
    path.write_text(f"sources: {{a: 'demo:'}}\npublish: {{bind: '{ipc}'}}\n")
    process = daemon_process("run", "--config", str(path))
    with Subscriber(ipc, kinds=("detections",), timeout_s=60) as subscriber:
        assert subscriber.receive(60) is not None
    for text in ("sources: [{uri: x, password: geheim77}]", "sources: {a: {uri: x, password: !geheim77}}"):
        path.write_text(text)
        told = cli("reload", ipc)
        assert told.returncode == 78
        seen = cli("status", ipc, "--json")
        assert "not reloaded" in told.stderr
        for said in (told.stdout, told.stderr, seen.stdout, cli("status", ipc).stdout):
            assert "geheim77" not in said
    process.send_signal(signal.SIGTERM)
    assert "geheim77" not in process.communicate(timeout=20)[1]


def test_a_pipe_in_place_of_the_configuration_stops_no_later_reload(
    daemon_process: Start, cli: Cli, tmp_path: Path, ipc: str
) -> None:
    path = tmp_path / "c.yaml"
    text = f"sources: {{a: 'demo:'}}\npublish: {{bind: '{ipc}'}}\n"
    path.write_text(text)
    daemon_process("run", "--config", str(path))
    with Subscriber(ipc, kinds=("detections",), timeout_s=60) as subscriber:
        assert subscriber.receive(60) is not None
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in cli("reload", ipc).stderr
    path.unlink()
    path.write_text(text.replace("'demo:'", "'demo:', b: 'demo:'"))
    assert cli("reload", ipc).stdout == "sources.b: added\n"


@pytest.mark.parametrize(
    ("key", "value", "secret"),
    [
        ("token", "/etc/edgeinfer/tokens", False),
        ("token", "tokens", False),
        ("token", "web/site.tokens", False),
        ("token", "./t", False),
        ("key", "key.pem", False),
        ("key", "/var/lib/edgeinfer/web.key", False),
        ("token", "hunter22", True),
        ("token", "/9j4AAQSkZJRgABAQAAAQABAAD", True),
        ("token", "eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJSM", True),
        ("token", "/etc/passwd and more", True),
        ("key", "AAAAB3NzaC1yc2EAAAADAQAB", True),
        ("auth_token", "/etc/edgeinfer/tokens", True),
        ("password", "key.pem", True),
    ],
)
def test_a_setting_that_names_a_file_is_no_secret(key: str, value: str, secret: bool) -> None:
    """`http.token` and `http.tls.key` name files, which errors must be able to name too."""
    assert is_secret(key, value) is secret
    if " " not in value:
        assert (value in secrets_in_lines(f"  {key}: {value}\n")) is secret
