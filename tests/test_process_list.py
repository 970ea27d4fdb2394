"""Passwords among the arguments: what the process list shows of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.client import Subscriber
from edgeinfer.commands import _arguments
from edgeinfer.guard.process_list import hold_secrets, masked
from edgeinfer.guard.redaction import redact
from edgeinfer.watchdog.early import PARENT

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("rtsp://admin:hunter2@camera/x", "rtsp://*************@camera/x"),
        ("yard=rtsp://admin:hunter2@camera/x", "yard=rtsp://*************@camera/x"),
        ("http://h/v.cgi?loginuse=a&loginpas=hunter2", "http://h/v.cgi?loginuse=a&loginpas=*******"),
        ("rtsp://h/user=a_password=hunter2_channel=1.sdp", "rtsp://h/user=a_password=*********************"),
        ("sources.yard.password=hunter2", "sources.yard.password=*******"),
        ("--set=sources.yard.password=hunter2", "--set=sources.yard.password=*******"),
        ("sources.yard.password=ü", "sources.yard.password=**"),
        ("--source=rtsp://a:b c@h", "--source=rtsp://*****@h"),
        ("sources.yard.password_file=/etc/p", "sources.yard.password_file=/etc/p"),
        ("sources.yard.password=${env:PW}", "sources.yard.password=${env:PW}"),
        ("rtsp://admin:${env:PW}@camera/x", "rtsp://admin:${env:PW}@camera/x"),
        ('sources.a={uri: "rtsp://h/x", password: S3krit}', 'sources.a={uri: "rtsp://h/x", password: ******}'),
        ("--set=sources={a: {password: X, fps: 3}}", "--set=sources={a: {password: *, fps: 3}}"),
        ('sources.a={"password": "X y, z"}', 'sources.a={"password": *******"}'),
        ("sources.a={password: two words}", "sources.a={password: *********}"),
        ("sources.a={password: [one, two]}", "sources.a={password: ***********"),
        ("sources.a={password: '${env:PW}', user: b}", "sources.a={password: '${env:PW}', user: b}"),
        (
            'gst:rtspsrc extra-headers="a,Authorization=(string)Basic X" ! y',
            'gst:rtspsrc extra-headers="a,Authorization=(string)Basic**" ! y',
        ),
        ('x extra-headers="a,Authorization=(string)Basic ${env:X}" ! y',) * 2,
        ("publish.curve.secret_key=server.key", "publish.curve.secret_key=server.key"),
        ("publish={curve: {secret_key: server.key}}", "publish={curve: {secret_key: server.key}}"),
        ("publish.curve.secret_key=" + "k" * 40, "publish.curve.secret_key=" + "*" * 40),
        ("rtsp://camera/x", "rtsp://camera/x"),
        ("demo:", "demo:"),
        ("run", "run"),
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        ("frames=3", "frames=3"),
    ],
)
def test_masked(argument: str, shown: str) -> None:
    assert masked(argument) == shown
    assert hold_secrets([argument]) is (argument != shown)
    assert not hold_secrets([shown]) or "*" in shown


@given(st.text(max_size=40).map(lambda text: f"rtsp://a:{text}x@h"))
def test_a_mask_is_as_long_as_what_it_hides(argument: str) -> None:
    if not any(0xD800 <= ord(letter) < 0xDC80 or 0xDCFF < ord(letter) < 0xE000 for letter in argument):
        assert len(os.fsencode(masked(argument))) == len(os.fsencode(argument))


@pytest.mark.slow
@pytest.mark.parametrize("supervised", [(), ("--supervise",)])
def test_the_process_list_shows_no_password(daemon_process: Start, ipc: str, supervised: tuple[str, ...]) -> None:
    process = daemon_process(
        "run", *supervised, "--source", "a=demo:", "--source", "yard=rtsp://admin:geheim77@127.0.0.1:9/x",
        "--set", "sources.yard.reconnect=true", "--set", "sources.yard.wait=true", "--bind", ipc,
    )  # fmt: skip
    with Subscriber(ipc, kinds=("detections",), timeout_s=60) as subscriber:
        assert subscriber.receive(60) is not None
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) >= 1 + len(supervised)
    for member in family:
        assert "geheim77" not in " ".join(member.cmdline())
        assert "run" in member.cmdline() or "-I" in member.cmdline(), "what sources' processes are forked from"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert err.count("a password on the command line was in the process list for a moment") == 1
    assert "geheim77" not in err


def test_a_command_without_passwords_is_not_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert _arguments.taken(["run", "--source", "demo:"]) == ["run", "--source", "demo:"]
    assert capsys.readouterr().err == ""


def test_a_child_gets_the_real_ones_and_leaves_them_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ["run", "--source", "rtsp://a:geheim77@h"]
    monkeypatch.setenv(_arguments.VARIABLE, json.dumps(real))
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert _arguments.taken(["run", "--source", "rtsp://**********@h"]) == real
    assert _arguments.VARIABLE not in os.environ
    assert redact("geheim77") == "***"
    monkeypatch.setenv(_arguments.VARIABLE, json.dumps(real))
    monkeypatch.setenv(PARENT, "1" if os.getppid() != 1 else "2")
    assert _arguments.taken(["check", "x"]) == ["check", "x"], "another's are nobody's"


def test_where_they_can_not_be_overwritten_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_arguments, "conceal", lambda: False)
    _arguments.taken(["run", "--source", "rtsp://a:geheim77@h"])
    err = capsys.readouterr().err
    assert "is in the process list, for everybody here to read" in err
    assert "geheim77" not in err


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_any_python_can_overwrite_its_arguments(version: str, tmp_path: Path) -> None:
    found = [sys.executable] if version == f"{sys.version_info[0]}.{sys.version_info[1]}" else []
    found += [str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    if not found:
        pytest.skip(f"no Python {version} here")
    code = (
        "from edgeinfer.guard.process_list import conceal\nassert conceal()\n"
        "print(open('/proc/self/cmdline').read().split('\\0'))"
    )
    root = str(Path(_arguments.__file__).parents[2])
    variables = {"PYTHONPATH": root}
    given_to = [found[0], "-c", code, "x=rtsp://a:geheim77@h", "b"]
    process = subprocess.run(given_to, capture_output=True, text=True, check=True, env=variables, cwd=tmp_path)
    assert process.stdout.endswith("'x=rtsp://**********@h', 'b', '']\n")
