"""YAML files, read safely: no objects, no duplicate keys, no endless input, nothing that swells, nothing quoted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from edgeinfer.config.yamlsize import check_size
from edgeinfer.errors import ConfigError, InputError, unreadable
from edgeinfer.guard.files import read_small
from edgeinfer.guard.limits import MAX_CONFIG_BYTES, MAX_YAML_DEPTH, MAX_YAML_NUMBER
from edgeinfer.guard.redaction import hidden_meanwhile, remember_text

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
"""PyYAML quotes with repr()."""
_TOKEN = re.compile(r"'(?:<[a-z ]+>|[-,:?\]}\[{ ]|\\t)'")
"""What PyYAML calls the parts of a text, and its punctuation: that is not the text."""
_PLAIN = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where the plain one would forget the first, and half characters."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call] # (PyYAML's stubs)
            raise _error(f"more than {MAX_YAML_DEPTH} levels", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

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
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """A configuration's data. Raises InputError where it can't be read, TemporaryError where it can't be now, and
    ConfigError where it is not YAML. What it holds of passwords is known from then on, however the reading ends.
    """
    text = _text(path)
    remember_text(text)
    return parse_yaml(text, str(path))


@contextlib.contextmanager
def foreign_yaml(path: Path) -> Iterator[Any]:
    """The data of a file that others wrote: raises like `load_yaml`. What it calls secret is hidden in errors that are
    made within this context, and has no say in what is hidden elsewhere.
    """
    text = _text(path)
    with hidden_meanwhile(text):
        yield parse_yaml(text, str(path))


def _text(path: Path) -> str:
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


def parse_yaml(text: str, name: str) -> Any:
    """The data in a YAML text; `name` says in errors where it came from. Raises ConfigError, which quotes nothing."""
    try:
        return _data(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = error.problem or error.context or "it ends too early"
        raise ConfigError(f"{where}: not valid YAML: {_unquoted(problem)}", _hint(problem)) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{name}: not valid YAML: the character {_code(error.character)} is not allowed") from None
    except RecursionError:
        raise ConfigError(f"{name}: not valid YAML: too many levels") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"{name}: not valid YAML: it holds a value that is none",
            "a date or number that is meant as text wants quotes",
        ) from None


def _data(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        check_size(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _unquoted(problem: str) -> str:
    """PyYAML's own words, without those of the file: they may be a password."""
    return _QUOTED.sub(lambda found: found[0] if _TOKEN.fullmatch(found[0]) else "…", problem)


def _hint(problem: str) -> str:
    if re.search(r"cannot start any token|the tag|undefined|duplicate anchor|expected ' '|alphabetic", problem):
        return "a text that begins with one of !*&%@` wants quotes around it"
    return ""


def _code(character: Any) -> str:
    return f"U+{character if isinstance(character, int) else ord(str(character)[:1] or chr(0)):04X}"
