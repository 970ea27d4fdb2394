"""`FILE.d/*.yaml`: further sources of a configuration FILE, a file for each or for some.

What adds a camera puts a file there, and what removes it takes that away; nothing has to edit a text that a person
wrote.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgeinfer.config import strict
from edgeinfer.config.places import Places
from edgeinfer.config.yamlfile import Document, parse_document, read_text
from edgeinfer.errors import ConfigError, InputError
from edgeinfer.guard.files import in_time
from edgeinfer.guard.limits import MAX_DROPIN_BYTES, MAX_DROPINS
from edgeinfer.guard.redaction import remember_text

SECTION = "sources"
"""All that a drop-in may hold."""


def folder_of(path: Path) -> Path:
    """Where the drop-ins of a configuration are, if it has any."""
    return path.with_name(f"{path.name}.d")


def read_dropins(path: Path) -> list[Document]:
    """The drop-ins of a configuration, by name. Raises like `read_document`."""
    found: list[Document] = []
    room = MAX_DROPIN_BYTES
    for file in dropin_files(path):
        text = read_text(file)
        remember_text(text)
        room -= len(text.encode())
        if room < 0:
            raise ConfigError(f"{file.parent}: more than {MAX_DROPIN_BYTES >> 10} KiB in all", "leave some out")
        found.append(_checked(parse_document(text, str(file))))
    return found


def merged(main: Document, others: list[Document]) -> object:
    """The data of a configuration and its drop-ins. Raises ConfigError where two have a source of the same name."""
    data = {} if main.data is None else main.data
    sources = data.get(SECTION) if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(sources, dict | None):
        return data  # which is told by whoever knows what it ought to be
    together = dict(sources or {})
    homes = dict.fromkeys(together, main.places)
    for document in others:
        for name, table in _sources(document):
            if name in together:
                raise _twice(name, document.places, homes[name])
            together[name], homes[name] = table, document.places
    return {**data, SECTION: together} if others else data


def dropin_files(path: Path) -> list[Path]:
    """The files of a configuration's drop-ins, by name. Raises InputError, or ConfigError for too many."""
    folder = folder_of(path)
    try:
        names = in_time(lambda: os.listdir(folder))  # noqa: PTH208 (names suffice)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}", "its files belong to the configuration") from None
    chosen = sorted(name for name in names if name.endswith(".yaml") and not name.startswith("."))
    if len(chosen) > MAX_DROPINS:
        raise ConfigError(f"{folder}: more than {MAX_DROPINS} files", "several sources may stand in one")
    return [folder / name for name in chosen]


def _checked(document: Document) -> Document:
    data, places = document.data, document.places
    if data is not None and not isinstance(data, dict):
        raise _wrong("", "a drop-in holds sources and nothing else", places)
    for key in data or {}:
        if key != SECTION:
            raise _wrong(str(key), "not in a drop-in, which holds sources and nothing else", places, of_name=True)
    sources = (data or {}).get(SECTION)
    if sources is not None and not isinstance(sources, dict):
        raise _wrong(SECTION, f"{strict.shown(SECTION, sources)} is not allowed: expected names with sources", places)
    return document


def _sources(document: Document) -> Iterator[tuple[object, object]]:
    yield from ((document.data or {}).get(SECTION) or {}).items()


def _twice(name: object, here: Places, there: Places) -> ConfigError:
    key = f"{SECTION}.{name}"
    place = there.find(key, of_name=True).place or there.file
    return _wrong(key, f"there is a source of that name already, at {place}", here, of_name=True)


def _wrong(key: str, text: str, places: Places, of_name: bool = False) -> ConfigError:
    return ConfigError.at(key, text, of_name=of_name).placed(places.file, places.find(key, of_name).place)
