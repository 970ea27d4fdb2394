"""Weights in files beside the network: which ones it names, whether it may read them, and their digests.

What a network names is read as us: a path out of its folder would make it read any file of this machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeinfer.errors import TEMPORARY, InputError, unreadable
from edgeinfer.guard.files import open_anything
from edgeinfer.guard.limits import MAX_EXTERNAL_BYTES, MAX_EXTERNAL_FILES
from edgeinfer.models import wire
from edgeinfer.models.schema import ENTRY, TENSOR
from edgeinfer.models.walk import Walk

EXTERNAL = 1
_ODD = re.compile(r"[\x00-\x1f\x7f\\*]")
"""What no exporter puts into a file's name. ONNX Runtime takes `*/_ORT_MEM_ADDR_/*` for an address in our memory."""
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tensor's data lies: a file, named as the network does but plainly, and its bytes `start` to `end`."""

    location: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A file as it was when it was read; another content has another mark (`status_of`)."""

    path: Path
    status: tuple[int, ...]


def status_of(status: os.stat_result) -> tuple[int, ...]:
    """Device, inode, size and both times of change. Nobody but root can set the last one."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def span_of(walk: Walk, tensor: memoryview) -> tuple[int, Span | None]:
    """Element type of a tensor (ONNX's number), and where its data lies; None for in the network's own file.

    Whatever names a file counts, however `data_location` is set: which of the two wins is a reader's choice.
    Raises WireError.
    """
    kind, place, entries = 0, 0, {}
    for number, value in walk.fields(TENSOR, tensor):
        if number == 2 and isinstance(value, int):
            kind = value
        elif number == 14 and isinstance(value, int):
            place = value
        elif number == 13 and isinstance(value, memoryview):
            key, text = _entry(walk, value)
            if key in entries:
                raise wire.WireError(
                    "a tensor names two external files" if key == "location" else f"{key[:30]!r} given twice"
                )
            entries[key] = text
    if "location" not in entries:
        if place == EXTERNAL or entries:
            raise wire.WireError("a tensor lies elsewhere, and nothing says where")
        return kind, None
    return kind, _span(entries)


def _entry(walk: Walk, data: memoryview) -> tuple[str, str]:
    found = {1: "", 2: ""}
    for number, value in walk.fields(ENTRY, data):
        if number in found and isinstance(value, memoryview):
            try:
                found[number] = bytes(value).decode()
            except UnicodeDecodeError:
                raise wire.WireError("the name of an external file is no text") from None
    return found[1], found[2]


def _span(entries: dict[str, str]) -> Span:
    offset, length = entries.get("offset", "0"), entries.get("length", "0")
    if not (_NUMBER.fullmatch(offset) and _NUMBER.fullmatch(length)):
        raise wire.WireError("the place of a tensor in its external file is no number")
    location, start = entries["location"], int(offset)
    if not location or _ODD.search(location) or len(location) > 1024:
        raise wire.WireError(f"{location[:60]!r} is no name for an external file")
    plain = PurePosixPath(location)
    return Span(plain.as_posix(), start, start + int(length))


def external_files(model: Path, spans: Iterable[Span]) -> dict[str, Path]:
    """Location → file, by name. Raises InputError where one is none in the model's folder, or too short."""
    needed: dict[str, int] = {}
    for span in spans:
        needed[span.location] = max(needed.get(span.location, 0), span.end)
    if len(needed) > MAX_EXTERNAL_FILES:
        raise InputError(f"{model}: weights in {len(needed)} files", "export it with all of them in one file")
    found, total = {}, 0
    for location in sorted(needed):
        path = _path(model, location)
        size = _regular(model, location, path).st_size
        if size < needed[location]:
            raise InputError(
                f"{model}: external data {location!r} has {size} bytes, and the network wants {needed[location]}",
                "copy it again: it is not whole",
            )
        found[location], total = path, total + size
    if total > MAX_EXTERNAL_BYTES:
        raise InputError(f"{model}: {total >> 30} GiB of weights, and {MAX_EXTERNAL_BYTES >> 30} are allowed")
    return found


def _path(model: Path, location: str) -> Path:
    relative = PurePosixPath(location)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{model}: external data {location!r} lies outside the model's folder", "move it there")
    path = model.parent
    for part in relative.parts:
        path = path / part
        if path.is_symlink():
            raise InputError(f"{model}: external data {location!r} is a symbolic link", "put the file itself there")
    return path


def _regular(model: Path, location: str, path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in TEMPORARY:
            raise unreadable(path, error) from error
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{model}: external data {location!r} is no regular file", "export the model again")
    return status


def digest_of(path: Path) -> tuple[str, Mark]:
    """sha256 of a regular file that is no link, as hex, and its mark. Raises InputError where it can't be read."""
    try:
        with open_anything(path, follow=False) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: not a regular file", "copy it to one")
            digest, left = hashlib.sha256(), status.st_size
            while left > 0 and (chunk := file.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    return digest.hexdigest(), Mark(path, status_of(status))
