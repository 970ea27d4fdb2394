"""Credentials in what is shown, shape by shape; and text that can be shown at all."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import shlex
import sys
import unicodedata
from typing import Any
from urllib.parse import quote, unquote

import pytest
import yaml
from hypothesis import example as example_of
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.commands.listen import describe, raw_line
from edgeinfer.config.uri import SourceUri, default_name
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard import redaction
from edgeinfer.guard.credentials import secrets_of_account
from edgeinfer.guard.limits import MAX_LINE_LENGTH, MAX_SECRETS
from edgeinfer.guard.printable import PrintableFormatter, escaped, one_line, printable, visible
from edgeinfer.guard.redaction import (
    redact,
    redact_value,
    remember,
    remember_secrets,
    remember_settings,
    remember_text,
)
from tests.test_messages import example


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("can't open rtsp://u:secret@host/x: gone", "can't open rtsp://***@host/x: gone"),
        ("rtsp://u:a@b@host/x, rtsp://host/y", "rtsp://***@host/x, rtsp://host/y"),
        ("two: rtsp://u:one@h/a and http://v:two@h/b", "two: rtsp://***@h/a and http://***@h/b"),
        ("rtsp://host/x", "rtsp://host/x"),
        ("mail@host", "mail@host"),
        ("http://h/x?token=abc&fps=3", "http://h/x?token=***&fps=3"),
        ("http://h/x?fps=3&api_key=abc", "http://h/x?fps=3&api_key=***"),
        ("http://h/x?USERPASSWORD=abc", "http://h/x?USERPASSWORD=***"),
        ("http://h/x?pwd=a&auth_x=b&SecretOf=c'", "http://h/x?pwd=***&auth_x=***&SecretOf=***'"),
        ("http://h/x?pwd=abc: gone", "http://h/x?pwd=***: gone"),
        ("rtsp://h/user=a_password=b_channel=1.sdp: gone", "rtsp://h/user=***_password=***_channel=1.sdp: gone"),
        ("http://h/x?fps=3&size=2", "http://h/x?fps=3&size=2"),
        ("rtspsrc user-pw=abc ! x", "rtspsrc user-pw=*** ! x"),
        ('rtspsrc user-pw="a b" user-id=me', "rtspsrc user-pw=*** user-id=me"),
        ("x password = 'a b' ! y", "x password = *** ! y"),
        ("x proxy-pw=abc, passphrase=def; y", "x proxy-pw=***, passphrase=***; y"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(redact(text)) == shown, "once is enough"


def test_a_value_of_the_configuration_is_one_url_whatever_it_holds() -> None:
    assert redact_value("rtsp://u:a b\n@ c@host/x") == "rtsp://***@host/x"
    assert redact_value("demo:") == "demo:"


def test_what_a_url_told_is_found_without_it_in_either_spelling() -> None:
    remember("rtsp://admin:p%40ss%2Fword@camera/x")
    assert redact("401 for admin with p%40ss%2Fword") == "401 for admin with ***"
    assert redact("401 for admin with p@ss/word.") == "401 for admin with ***."
    assert redact("Basic admin:p@ss/word") == "Basic ***"
    assert redact("it is xp@ss/word_x") == "it is x***_x", "whatever stands around it"


def test_a_short_word_is_looked_for_where_it_stands_for_itself() -> None:
    remember_secrets(["moon", "7341"])
    assert redact("moon, moons, moon_x, 7341 and 27341") == "***, moons, ***_x, *** and 27341"
    remember_secrets(["moonmoon", "mo0n"])
    assert redact("xmoonmoonx xmo0nx") == "x***x x***x", "what is no word is found anywhere"


MAKERS = {
    "Hikvision": "rtsp://admin:{}@192.168.1.20:554/Streaming/Channels/101",
    "Hikvision ISAPI": "http://192.168.1.20/ISAPI/Streaming/channels/101/httpPreview?auth={}",
    "XMeye": "rtsp://192.168.1.20:554/user=admin_password={}_channel=1_stream=0.sdp",
    "XMeye in lower and upper case": "rtsp://192.168.1.20:554/User=admin_Password={}_Channel=1_Stream=0.sdp?real_stream",
    "XMeye with ampersands": "rtsp://192.168.1.20:554/user=admin&password={}&channel=1&stream=0.sdp?",
    "Foscam": "http://192.168.1.20:88/cgi-bin/CGIProxy.fcgi?cmd=snapPicture2&usr=admin&pwd={}",
    "Wansview": "http://192.168.1.20/videostream.cgi?loginuse=admin&loginpas={}",
    "Vstarcam": "http://192.168.1.20:81/livestream.cgi?user=admin&pwd={}&streamid=0&audio=0",
    "Reolink": "http://192.168.1.20/cgi-bin/api.cgi?cmd=Snap&channel=0&rs=x&user=admin&password={}",
    "Reolink's token": "http://192.168.1.20/cgi-bin/api.cgi?cmd=Snap&token={}",
    "Dahua": "rtsp://192.168.1.20/cam/realmonitor?channel=1&subtype=0&authbasic={}",
    "Hi3510": "http://192.168.1.20/cgi-bin/hi3510/snap.cgi?&-usr=admin&-pwd={}",
    "TVT": "rtsp://192.168.1.20:554/0/admin:{}/main",
    "TVT at the end": "rtsp://192.168.1.20:554/live/admin:{}",
    "Blue Iris": "http://192.168.1.20:81/mjpg/front/video.mjpg?user=admin&pw={}",
    "ZoneMinder": "http://192.168.1.20/zm/cgi-bin/nph-zms?mode=jpeg&monitor=1&user=admin&pass={}",
    "Zmodo": "rtsp://192.168.1.20/live/ch0?username=admin&password={}",
    "Synology": "http://192.168.1.20:5000/webapi/entry.cgi?api=SYNO.SurveillanceStation.Camera&_sid={}",
    "three slashes": "rtsp:///admin:{}@192.168.1.20/main",
    "no slashes": "rtsp:admin:{}@192.168.1.20/main",
    "no scheme": "admin:{}@192.168.1.20/main",
    "no scheme, a name": "admin:{}@camera.example.org:554",
    "IPv6": "rtsp://admin:{}@[fe80::1]:554/x",
    "GStreamer": "gst:rtspsrc location=rtsp://192.168.1.20/x user-id=admin user-pw={} ! appsink",
    "HTTP": "Authorization: Basic {}",
}
"""Makers' public forms, the slips that people make of them, and pipelines."""


@pytest.mark.parametrize("form", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("password", ["hunter2", "Tr0ub4dor", "p%40ss%2Fw", "a+b=c"])
def test_makers_forms(form: str, password: str) -> None:
    url = form.format(password)
    for shown in (redact(f"can't open {url}: gone"), redact(url), redact_value(url), repr(SourceUri("rtsp", url))):
        assert password not in shown
    name = default_name(SourceUri("rtsp", url), set())
    assert password not in name
    remember(url)
    assert password not in redact(f"401 for {password}_x, {password}!")
    assert unquote(password) not in redact(f"401 for {unquote(password)}")
    assert quote(password, safe="") not in redact(f"401 for {quote(password, safe='')}")


@pytest.mark.parametrize("password", ["hunter2", "p@s/w", 'a"b\\c', "ü ber", "<a&b>", "it's", "x%41y"])
def test_however_a_library_spells_it(password: str) -> None:
    remember_secrets([password, *secrets_of_account(f"admin:{password}")])
    said = [
        quote(password, safe=""), quote(password), quote(password).lower(), json.dumps(password), repr(password),
        repr({"x": password}), repr(password.encode()), html.escape(password), password.replace("'", "''"),
        base64.b64encode(password.encode()).decode(), base64.b64encode(f"admin:{password}".encode()).decode(),
        json.dumps(password, ensure_ascii=False), yaml.safe_dump([password]), shlex.quote(password),
    ]  # fmt: skip
    for text in said:
        shown = redact(f"a {text} b")
        assert "***" in shown, text
        assert text.strip("'\"\n=- ") not in shown


def test_what_lies_below_a_secret_key_is_a_secret() -> None:
    remember_settings({
        "password": ["one1", {"two2": "three3"}], "x": [{"api_key": 123456, "token": {"a": [{"b": "four4"}]}}],
        "password_file": "/etc/camera", "secret_key": "server.key", "curve": {"secret_key": "k" * 40},
        "pin": "${env:PIN}", "passphrase": None, "pwd": True, "note": "password slip5",
    })  # fmt: skip
    shown = redact("one1 two2 three3 123456 four4 /etc/camera server.key ${env:PIN} None True slip5 " + "k" * 40)
    assert shown == "*** *** *** *** *** /etc/camera server.key ${env:PIN} None True *** ***"


def test_a_password_of_two_words_after_a_forgotten_colon() -> None:
    remember_settings({"password Q70 0x": None})
    assert redact("unknown key password Q70 0x") == "unknown key password ***"


def test_plain_data_that_contains_itself_has_an_end() -> None:
    data: dict[str, Any] = {"password": ["s3cret"]}
    data["x"] = data["password"].append(data)
    remember_settings(data)
    assert redact("s3cret") == "***"


def test_a_text_that_is_no_yaml_tells_its_secrets_too() -> None:
    remember_text("a: {password: *sec1, 'token': !sec2, api_key: \"sec 3\", pwd sec4 }")
    remember_text("  passphrase:sec5 # x\n# password: hint")
    assert redact("sec1 sec2 sec 3 sec4 sec5 hint") == "*** *** *** *** *** hint"


@pytest.mark.parametrize("url", ["rtsp://camera/x", "rtsp://admin@camera/x", "rtsp://admin:abc@camera", "demo:"])
def test_what_is_no_secret_or_too_short_for_one_is_not_looked_for(url: str) -> None:
    remember(url)
    assert redact("the admin has no abc of camera") == "the admin has no abc of camera"


def test_four_characters_are_enough() -> None:
    remember("rtsp://a:abcd@camera")
    assert redact("it is abcd!") == "it is ***!"


def test_the_longer_of_two_secrets_goes_first() -> None:
    remember("rtsp://a:hunter@h")
    remember("rtsp://b:hunter+two@h")
    assert redact("try hunter+two or hunter") == "try *** or ***"


def test_no_secret_displaces_another(caplog: pytest.LogCaptureFixture) -> None:
    remember("rtsp://u:camera_pw@h")
    for number in range(MAX_SECRETS):
        remember_secrets([f"secret{number:04}"])
    assert redact("a camera_pw secret0000 b") == "a *** *** b", "those known first are kept"
    assert redact(f"secret{MAX_SECRETS - 1:04}") == f"secret{MAX_SECRETS - 1:04}", "the newest is not added"
    assert redact(f"rtsp://u:secret{MAX_SECRETS - 1:04}@h") == "rtsp://***@h", "and hidden where it looks like it"
    assert len(redaction._known) == MAX_SECRETS
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "said once"
    remember_secrets(["secret0000"])
    assert len(caplog.records) == 1


def test_a_traceback_in_a_log_holds_none() -> None:
    try:
        raise OSError("rtsp://u:secret@h/x")
    except OSError:
        record = logging.getLogger("x").makeRecord("x", 40, "f.py", 1, "at %s", ("rtsp://u:secret@h",), sys.exc_info())
    text = PrintableFormatter("edgeinfer: %(message)s").format(record)
    assert text.startswith("edgeinfer: at rtsp://***@h\n  Traceback")
    assert "secret" not in text


# --- what can be shown ---

any_text = st.text(st.characters(), max_size=60)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


IGNORABLE = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)} | {
    *range(0xE0000, 0xE1000)
}
"""Letters and marks that nobody sees."""


def is_unsafe(character: str) -> bool:
    """As Unicode has it: what a terminal obeys, half characters, separators of lines, and what nobody sees."""
    return (
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        or character in "\u034f\u115f\u1160\u3164\uffa0"
    )


@given(any_text)
def test_a_printable_text_is_one_line_that_can_be_encoded_and_obeyed_by_no_terminal(text: str) -> None:
    shown = printable(text)
    assert not CONTROLS.search(shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()  # raises for half a character
    assert printable(shown) == shown
    assert not CONTROLS.search(str(EdgeinferError(text, text)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a\n\tb\r\n ", "a b"),
        ("\x1b[2J\x9b31m", "�[2J�31m"),
        ("\ud83d", "\\ud83d"),
        ("grün ×", "grün ×"),
        ("rtsp://u:secret@h\nx", "rtsp://***@h x"),
        ("x" * MAX_LINE_LENGTH, "x" * MAX_LINE_LENGTH),
        ("x" * (MAX_LINE_LENGTH + 1), "x" * MAX_LINE_LENGTH + "…"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


UNSAFE = (
    "\x1b\x9b\x07\u202a\u202e\u2066\u2069\u200e\u200f\u061c\u200b\u200d\ufeff\xad\u2028\u2029\ud800\n\t\x7f\U000e0041"
)


@given(st.lists(st.sampled_from(UNSAFE) | st.characters(), max_size=60).map("".join))
@example_of(UNSAFE)
def test_visible_changes_only_what_is_unsafe(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    for before, after in zip(text, shown, strict=True):
        assert after in (before, "�")
        if is_unsafe(before) and before not in "\n\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2":
            assert after == "�" or ord(before) in range(0x110BD, 0x13440), "marks of a script are seen"
        if unicodedata.category(before)[0] in "LNPSZM" and not is_unsafe(before) and before.isprintable():
            assert after == before or ord(before) in IGNORABLE
    assert one_line(text) == shown.replace("\n", "�")


@given(st.recursive(any_text, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3)))
def test_escaped_json_means_the_same(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert json.loads(escaped(text)) == value
    assert not CONTROLS.search(escaped(text))


@pytest.mark.parametrize("kind", ["status", "info", "detections"])
def test_listen_shows_nothing_that_a_terminal_obeys(kind: str) -> None:
    message = example(kind, text="\x1b]0;owned\x07\x9b31m\r")
    assert not CONTROLS.search(describe(message))
    payload = json.dumps({"kind": kind, "x": "\x1b\x9b\x7f"}, ensure_ascii=False).encode()
    assert not CONTROLS.search(raw_line(payload))
    assert json.loads(raw_line(payload)) == json.loads(payload)
