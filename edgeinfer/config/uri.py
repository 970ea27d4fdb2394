"""Source URIs: which plugin opens one, what a source is called, and how to show it without its secrets."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from edgeinfer.config import plugins, strict
from edgeinfer.config.paths import exists, is_dir
from edgeinfer.errors import ConfigError
from edgeinfer.guard.redaction import GONE, redact, redact_value, remember
from edgeinfer.messages import SOURCE_PATTERN

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

MAX_DIGITS = 6

SCHEMES = {"rtsps": "rtsp", "http": "rtsp", "https": "rtsp"}
"""Schemes that another plugin opens than the one of their name."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9_+.-]*):")
_NAMED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63})=(.+)$", re.DOTALL)


class SourceUri(Struct, frozen=True):
    """A source's URI and the plugin that opens it. `str()` never shows credentials."""

    plugin: str
    text: str

    def __str__(self) -> str:
        return redact_value(self.text)

    def __repr__(self) -> str:
        return f"SourceUri({self})"


def parse_uri(text: str, path: str = "source") -> SourceUri:
    """Chooses the plugin: a number is a V4L2 camera, `scheme:` names the plugin, the rest is a file, folder or glob.

    Raises ConfigError for a scheme that no plugin has.
    """
    remember(text)
    if text.isdecimal() and len(text) > MAX_DIGITS:
        raise ConfigError.at(path, f"no camera has a number of {len(text)} digits")
    if text.isdecimal():
        return SourceUri("v4l2", f"v4l2:///dev/video{int(text)}")
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() == "file":
        return parse_uri(text[len("file:") :].removeprefix("//"), path)
    if scheme and not exists(text):
        return SourceUri(_plugin_of(scheme[1], text, path), text)
    if text.startswith("/dev/"):
        return SourceUri("v4l2", f"v4l2://{text}")
    return SourceUri("images" if _is_images(text) else "video", text)


def split_name(text: str) -> tuple[str | None, str]:
    """`[NAME=]URI` as on the command line. A file whose name looks like that wants `./` before it."""
    match = _NAMED.match(text)
    return (match[1], match[2]) if match else (None, text)


def default_name(uri: SourceUri, taken: frozenset[str] | set[str]) -> str:
    """A name for a source that was given none: from its device or file, made unique with a number."""
    network = uri.plugin == "rtsp" or "://" in uri.text
    stem = "gst" if uri.plugin == "gst" else _network_stem(uri.text) if network else _file_stem(uri.text)
    if redact_value(stem) != stem:
        stem = uri.plugin
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:56] or uri.plugin
    names = (base if n == 1 else f"{base}-{n}" for n in range(1, len(taken) + 2))
    name = next(name for name in names if name not in taken)
    assert re.search(SOURCE_PATTERN, name)  # noqa: S101 (by construction)
    return name


def _file_stem(text: str) -> str:
    scheme, _, rest = redact(text).rpartition(":")
    return Path(rest.rstrip("/*")).stem.removesuffix("*") or scheme


def _network_stem(text: str) -> str:
    """`rtsp://user:secret@host:554/yard?x=1` → yard, and the host where there is no path."""
    address = re.split(r"[?#]", redact_value(text).rpartition("@")[2].rpartition("://")[2])[0]
    host, _, path = address.partition("/")
    parts = [part for part in path.split("/") if part and GONE not in part]
    return Path(parts[-1] if parts else "").stem or host.rpartition(":")[0] or host


def _plugin_of(scheme: str, text: str, path: str) -> str:
    known = [name for name in plugins.names("sources") if name not in ("images", "video")]
    if "." in scheme:
        return scheme  # a module's name, in which upper and lower case differ
    name = SCHEMES.get(scheme.lower(), scheme.lower())
    if name in known:
        return name
    hint = strict.nearest(scheme, [*known, *SCHEMES])
    raise ConfigError.at(path, f"{redact_value(text)!r}: no source of the kind {scheme!r}", hint)


def _is_images(text: str) -> bool:
    globbed = any(c in text for c in "*?[") and not exists(text)
    return is_dir(text) or globbed or Path(text).suffix.lower() in IMAGE_SUFFIXES
