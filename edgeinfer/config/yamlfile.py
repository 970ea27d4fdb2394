"""YAML files, read safely: no objects, no duplicate keys, no endless input, nothing that swells, nothing quoted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgeinfer.config.places import Names, Places, place_of_mark, place_of_offset
from edgeinfer.config.yamlsize import check_size
from edgeinfer.errors import ConfigError, InputError, Place, unreadable
from edgeinfer.guard.files import read_small
from edgeinfer.guard.limits import MAX_CONFIG_BYTES, MAX_YAML_DEPTH, MAX_YAML_NUMBER
from edgeinfer.guard.redaction import hidden_meanwhile, remember_text

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
"""PyYAML quotes with repr()."""
_TOKEN = re.compile(r"'(?:<[a-z ]+>|[-,:?\]}\[{ ]|\\t)'")
"""What PyYAML calls the parts of a text, and its punctuation: that is not the text."""
_PLAIN = "tag:yaml.org,2002:str"
_NO_VALUE = "it holds a value that is none"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML text as data, and where each thing in it stands."""

    data: Any
    places: Places


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where the plain one would forget the first, and half characters."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self.names: Names = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call] # (PyYAML's stubs)
            raise _error(f"more than {MAX_YAML_DEPTH} levels", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError):
            raise _error(_NO_VALUE, node.start_mark) from None

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if node.tag != _PLAIN and len(value) > MAX_YAML_NUMBER:
            raise _error(f"a value of more than {MAX_YAML_NUMBER} characters that is no text", node.start_mark)
        try:
            if isinstance(value, str) and not value.isascii():
                value = value.encode("utf-16", "surrogatepass").decode(
                    "utf-16"
                )  # two escapes of JSON may be one character
        except UnicodeDecodeError:
            raise _error("half a character", node.start_mark) from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue  # a list or a mapping is no key, which the base class says with its line
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise _error("a key is given twice", key.start_mark)
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep)
        pairs = ((key, value) for key, value in node.value if key.tag != "tag:yaml.org,2002:merge")
        self.names[id(node)] = {str(self.construct_object(key, True)): (key, value) for key, value in pairs}
        return mapping


def read_document(path: Path) -> Document:
    """A configuration. Raises InputError where it can't be read, TemporaryError where it can't be now, and ConfigError
    where it is not YAML. What it holds of passwords is known from then on, however the reading ends.
    """
    text = read_text(path)
    remember_text(text)
    return parse_document(text, str(path))


def load_yaml(path: Path) -> Any:
    """A configuration's data; see `read_document`."""
    return read_document(path).data


@contextlib.contextmanager
def foreign_yaml(path: Path) -> Iterator[Document]:
    """A file that others wrote: raises like `read_document`. What it calls secret is hidden in errors that are made
    within this context, and has no say in what is hidden elsewhere.
    """
    text = read_text(path)
    with hidden_meanwhile(text):
        yield parse_document(text, str(path))


def read_text(path: Path) -> str:
    """The text of a configuration, with its line ends as they are. Raises EdgeinferError."""
    try:
        data = read_small(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise unreadable(path, error, "is this the right file?") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None


def parse_document(text: str, file: str) -> Document:
    """The document in the text of `file`. Raises ConfigError with the place, which quotes nothing."""
    try:
        return _parsed(text, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _not_yaml(_problem(error), file, place_of_mark(file, mark) if mark else None) from None
    except yaml.reader.ReaderError as error:
        place = place_of_offset(file, text, error.position)
        raise _not_yaml(f"the character {_code(error.character)} is not allowed", file, place) from None
    except RecursionError:
        raise _not_yaml("too many levels", file, None) from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, KeyError, AttributeError):
        raise _not_yaml(_NO_VALUE, file, None) from None


def parse_yaml(text: str, name: str) -> Any:
    """The data in a YAML text that stands in no file; `name` says in errors where it came from. Raises ConfigError."""
    try:
        return parse_document(text, name).data
    except ConfigError as error:
        where = f"{name}, line {error.place.line}" if error.place else name
        raise ConfigError(f"{where}: {error.said}", error.hint) from None


def _parsed(text: str, file: str) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(None, Places(file, None, {}))
        check_size(node)
        return Document(loader.construct_document(node), Places(file, node, loader.names))
    finally:
        loader.dispose()


def _not_yaml(problem: str, file: str, place: Place | None) -> ConfigError:
    return ConfigError(f"not valid YAML: {_unquoted(problem)}", _hint(problem)).placed(file, place)


def _problem(error: yaml.MarkedYAMLError) -> str:
    return error.problem or error.context or "it ends too early"


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _unquoted(problem: str) -> str:
    """PyYAML's own words, without those of the file: they may be a password."""
    return _QUOTED.sub(lambda found: found[0] if _TOKEN.fullmatch(found[0]) else "…", problem)


def _hint(problem: str) -> str:
    if re.search(r"cannot start any token|the tag|undefined|duplicate anchor|expected ' '|alphabetic", problem):
        return "a text that begins with one of !*&%@` wants quotes around it"
    return "a date or number that is meant as text wants quotes" if problem == _NO_VALUE else ""


def _code(character: Any) -> str:
    return f"U+{character if isinstance(character, int) else ord(str(character)[:1] or chr(0)):04X}"
