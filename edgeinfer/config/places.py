"""Where in the text of a configuration each key and value stands: a person looks at lines, not at dotted keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from edgeinfer.errors import EdgeinferError, Place

Names = dict[int, dict[str, tuple[yaml.Node, yaml.Node]]]
"""A mapping's node, by its id → its keys as text → the nodes of each and of its value, once merges are written out."""


class Found(NamedTuple):
    """How much of a dotted key a text has, in characters, and where that stands."""

    depth: int
    place: Place | None


@dataclass(frozen=True, slots=True)
class Places:
    """The places of one text of `file`. An alias stands where its anchor does."""

    file: str
    root: yaml.Node | None
    names: Names

    def find(self, key: str, of_name: bool = False) -> Found:
        """The place of a key's value, or of its name; where the text lacks the end of the key, that of what it has.

        What a plain value lacks is the value's own fault: `sources.a.uri` stands at the value of `a`.
        """
        if not key:
            return Found(0, None if self.root is None else self._of(self.root))
        name, value, depth = None, self.root, 0
        while depth < len(key) and value is not None:
            step = self._step(value, key[depth:])
            if step is None:
                break
            depth, name, value = min(len(key), depth + step[0] + 1), step[1], step[2]
        if name is None or value is None:
            return Found(0, None)
        meant = depth == len(key) or isinstance(value, yaml.ScalarNode)
        return Found(depth, self._of(value if meant and not of_name else name))

    def below(self, key: str) -> list[str]:
        """The names in the mapping at a key of the top level; none where there is no such mapping."""
        _, value = self.names.get(id(self.root), {}).get(key, (None, None))
        return list(self.names.get(id(value), {}))

    def _step(self, node: yaml.Node, key: str) -> tuple[int, yaml.Node, yaml.Node] | None:
        """The longest name in a mapping that `key` begins with: one may have dots of its own."""
        names = self.names.get(id(node), {})
        fits = [name for name in names if key == name or key.startswith(f"{name}.")]
        if not fits:
            return None
        longest = max(fits, key=len)
        return len(longest), *names[longest]

    def _of(self, node: yaml.Node) -> Place:
        place, end = place_of_mark(self.file, node.start_mark), node.end_mark
        here = end.line == node.start_mark.line
        return place._replace(end_column=max(end.column + 1 if here else _line_end(node.start_mark), place.column + 1))


def located(error: EdgeinferError, *places: Places) -> EdgeinferError:
    """The error of a setting with its place in the one of these texts that has most of its key, else in the first.

    Errors of parts that know nothing of places begin with the key, which then stands in a text as it is.
    """
    key = error.message.partition(": ")[0] if error.key is None else error.key
    found = [(text.find(key, error.of_name), text.file) for text in places]
    (depth, place), file = max(found, key=lambda one: one[0].depth)
    return error.placed(file, place if error.key is not None or depth == len(key) else None)


def place_of_mark(file: str, mark: Any) -> Place:
    """The place of one of PyYAML's marks: a single character."""
    return Place(file, mark.line + 1, mark.column + 1, mark.column + 2)


def place_of_offset(file: str, text: str, offset: int) -> Place:
    """The place of a character in a text."""
    lines = text[:offset].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return Place(file, len(lines), len(lines[-1]) + 1, len(lines[-1]) + 2)


def _line_end(mark: Any) -> int:
    """The column behind the last character of the line that a mark stands in."""
    rest = (mark.buffer or "")[mark.pointer :].split("\n", 1)[0].rstrip("\r\0 ")
    return int(mark.column) + len(rest) + 1
