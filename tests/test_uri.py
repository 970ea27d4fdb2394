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


@pytest.mark.parametrize(
    ("text", "plugin", "kept"),
    [
        ("7", "v4l2", "v4l2:///dev/video7"),
        ("007", "v4l2", "v4l2:///dev/video7"),
        ("999999", "v4l2", "v4l2:///dev/video999999"),
        ("/dev/video0", "v4l2", "v4l2:///dev/video0"),
        ("file:///srv/a.mp4", "video", "/srv/a.mp4"),
        ("file:/srv/a.png", "images", "/srv/a.png"),
        ("FILE:a.mp4", "video", "a.mp4"),
        ("http://h/x", "rtsp", "http://h/x"),
        ("csi://0", "csi", "csi://0"),
        ("gst:videotestsrc", "gst", "gst:videotestsrc"),
        ("Own.Module:x", "Own.Module", "Own.Module:x"),
        ("a.webp", "images", "a.webp"),
        ("a.TIFF", "images", "a.TIFF"),
        ("what?.mp4", "images", "what?.mp4"),
    ],
)
def test_what_the_plugin_gets(text: str, plugin: str, kept: str) -> None:
    assert parse_uri(text) == SourceUri(plugin, kept)


def test_what_no_source_is() -> None:
    with pytest.raises(ConfigError, match=r"^here: no camera has a number of 7 digits"):
        parse_uri("1234567", "here")
    with pytest.raises(ConfigError, match=r"^here: 'rtps://\*\*\*@h': no source of the kind 'rtps'; did you mean rtsp"):
        parse_uri("rtps://u:secret@h", "here")
    with pytest.raises(ConfigError, match="no source of the kind 'images'"):
        parse_uri("images:x")


def test_its_password_is_remembered() -> None:
    parse_uri("rtsp://admin:hunter2@camera/x")
    assert redact("the camera refuses hunter2") == "the camera refuses ***"


@pytest.mark.parametrize(
    ("text", "taken", "name"),
    [
        ("0", set(), "video0"),
        ("demo:", {"demo"}, "demo-2"),
        ("demo:", {"demo", "demo-2", "demo-3"}, "demo-4"),
        ("a/b/front door.mp4", set(), "front-door"),
        ("photos/*.jpg", set(), "images"),
        ("photos/*", set(), "photos"),
        ("gst:videotestsrc ! x", set(), "gst"),
        ("http://host:81", set(), "host"),
        ("rtsp://host/live/ch1/", set(), "ch1"),
        ("rtsp://u:p@host/a#b", set(), "a"),
        ("x" * 90 + ".mp4", set(), "x" * 56),
        ("___.mp4", set(), "video"),
    ],
)
def test_a_source_is_called_after_what_it_is(text: str, taken: set[str], name: str) -> None:
    assert default_name(parse_uri(text), taken) == name


def test_a_glob_that_is_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].mp4").touch()
    assert parse_uri(str(tmp_path / "a[1].mp4")).plugin == "video"


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
