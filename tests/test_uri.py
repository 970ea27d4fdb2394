"""Source URIs: the right plugin, a usable name, and no secret shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.config.uri import SourceUri, default_name, parse_uri, split_name
from edgeinfer.errors import ConfigError
from edgeinfer.guard.redaction import redact
from edgeinfer.messages import SOURCE_PATTERN


@pytest.mark.parametrize(
    ("text", "plugin"),
    [
        ("0", "v4l2"),
        ("v4l2:///dev/video1", "v4l2"),
        ("/dev/video0", "v4l2"),
        ("demo:", "demo"),
        ("rtsp://host/x", "rtsp"),
        ("RTSPS://host/x", "rtsp"),
        ("https://host/x.mjpg", "rtsp"),
        ("clip.mp4", "video"),
        ("dir/clip", "video"),
        ("file:///tmp/clip.mp4", "video"),
        ("a.jpg", "images"),
        ("A.JPG", "images"),
        ("photos/*.jpg", "images"),
        ("photos/**/[ab].png", "images"),
    ],
)
def test_the_plugin(text: str, plugin: str) -> None:
    assert parse_uri(text).plugin == plugin


def test_a_folder_is_images(tmp_path: Path) -> None:
    assert parse_uri(str(tmp_path)).plugin == "images"


def test_a_file_whose_name_looks_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("day:one.mp4").touch()
    assert parse_uri("day:one.mp4").plugin == "video"


def test_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean demo"):
        parse_uri("demoo:")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("street=clip.mp4", ("street", "clip.mp4")),
        ("clip.mp4", (None, "clip.mp4")),
        ("rtsp://h/x?a=b", (None, "rtsp://h/x?a=b")),
        ("./a=b.mp4", (None, "./a=b.mp4")),
        ("yard=rtsp://u:p@h/x", ("yard", "rtsp://u:p@h/x")),
    ],
)
def test_names(text: str, parts: tuple[str | None, str]) -> None:
    assert split_name(text) == parts


@given(st.text(min_size=1, max_size=80), st.sets(st.text(max_size=5), max_size=3))
def test_any_source_gets_a_legal_free_name(text: str, taken: set[str]) -> None:
    name = default_name(SourceUri("video", text), taken)
    assert re.match(SOURCE_PATTERN, name)
    assert name not in taken


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rtsp://u:p@host:554/yard?channel=1", "yard"),
        ("rtsp://u:p/q@192.168.1.20:554/", "192-168-1-20"),
        ("rtsps://host", "host"),
        ("http://host/live/front.mjpg", "front"),
    ],
)
def test_a_network_camera_is_called_after_its_stream_or_host(text: str, name: str) -> None:
    assert default_name(parse_uri(text), set()) == name


SECRET = st.text(
    st.characters(codec="ascii", exclude_characters=" &#'\"<>\t\r\n\v\f\x1c\x1d\x1e\x1f"), min_size=4, max_size=12
).map(lambda text: f"s3c{text}")


@given(SECRET, SECRET, SECRET.map(lambda text: text.replace("@", "")))
def test_credentials_are_never_shown(user: str, password: str, token: str) -> None:
    url = f"rtsp://{user}:{password}@127.0.0.1:8554/yard?token={token}&fps=3"
    uri = SourceUri("rtsp", url)
    for shown in (redact(f"can't open {url} now"), str(uri), repr(uri), f"{uri}"):
        assert user not in shown
        assert password not in shown
        assert token not in shown
        assert "127.0.0.1:8554/yard" in shown
