"""Puts the sources together, in the order of trust: what answers, what is on disk, what packages claim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from edgeinfer.environment import cuda, formats, jetson, jtop, libraries, live, nodes, system
from edgeinfer.environment.facts import Environment, Fact, Fault, Note, Reading
from edgeinfer.environment.tree import Tree

MAX_STATUS = 64 << 20
MAX_TEXT = 300


def probe(root: Path = Path("/"), run: live.Run = live.run) -> Environment:
    """Finds out what this machine is, or the one whose files lie under `root`.

    Below any root but "/" only files are read, and none outside it. On "/" libraries are asked too, each in a
    child process started with `run` and killed after 30 s. Raises InputError if `root` is no folder.
    """
    tree = Tree(root)
    notes = list(_notes(tree, run))
    return Environment(live=tree.is_live, faults=tuple(map(_one_line, tree.faults)), **_facts(notes))


def _notes(tree: Tree, run: live.Run) -> Iterator[Note]:
    answers = [*live.read(tree, run), *nodes.read(tree)] if tree.is_live else []
    last = list(jtop.read(tree, run)) if tree.is_live else []
    status = tree.text("var/lib/dpkg/status", MAX_STATUS) or ""
    packages = formats.dpkg_status(status)
    surroundings = list(system.read(tree, packages))
    yield from answers
    yield from jetson.read(tree, packages)
    yield from cuda.read(tree, packages)
    yield from libraries.read(tree, packages)
    yield from surroundings
    yield from system.unfinished(status)
    pythons = [note for note in surroundings if note.field == "system_python"]
    for note in system.system_packages(tree, pythons[0].value if pythons else None):
        if not tree.is_live or note.field == "tensorrt_system_module":
            yield note
    yield from last
    if not tree.is_live:
        yield from (note._replace(field="python") for note in pythons)


def _facts(notes: Iterable[Note]) -> dict[str, Any]:
    readings: dict[str, list[Reading[Any]]] = {}
    for note in notes:
        reading = Reading(_clean(note.value), _clean(note.source), note.exact)
        known = readings.setdefault(note.field, [])
        if reading not in known:
            known.append(reading)
    return {field: Fact(tuple(found)) for field, found in readings.items()}


def _one_line(fault: Fault) -> Fault:
    return Fault(_clean(fault.source), _clean(" ".join(fault.message.split())), _clean(fault.remedy))


def _clean(value: Any) -> Any:
    """Text without control characters: it ends up on terminals, and files can hold anything."""
    if not isinstance(value, str):
        return value
    return "".join(char for char in value[:MAX_TEXT] if char.isprintable()).strip()
