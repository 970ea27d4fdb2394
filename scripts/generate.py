"""Writes what is generated from the code: docs/schema/*.json, docs/man/*.1, blocks in the README and in docs/*.md.

A block stands in a page between `<!-- generated: NAME -->` and `<!-- end -->`. To add one, write a function that gives
its Markdown (they are in `reference/`), name it in BLOCKS, and put the two markers where it is to stand.

With `--check` nothing is written; what is not current is named, and the exit code is 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from reference import commands, house, limits, manual, metrics, plugins, settings, tables
from reference.structs import fields_of_messages

from edgeinfer import codes
from edgeinfer.messages import KINDS, json_schema

ROOT = Path(__file__).parent.parent
MAN = ROOT / "docs" / "man"

BLOCKS: dict[str, Callable[[], str]] = {
    "source states": lambda: tables.of_codes("state", codes.STATES),
    "source reasons": lambda: tables.of_codes("code", codes.SOURCE_REASONS),
    "drop reasons": lambda: tables.of_codes("reason", codes.DROP_REASONS),
    "capture clocks": lambda: tables.of_codes("capture_clock", codes.CAPTURE_CLOCKS),
    "problems": lambda: tables.of_codes("code", codes.PROBLEMS),
    "news": lambda: tables.of_codes("code", codes.NEWS),
    "health reasons": lambda: tables.of_codes("code", codes.HEALTH),
    "readiness reasons": lambda: tables.of_codes("code", codes.READINESS),
    "crash codes": lambda: tables.of_codes("code", codes.CRASHES),
    "exit codes": lambda: tables.of_codes("exit code", codes.EXIT_CODES),
    "message fields": fields_of_messages,
    "commands": commands.reference,
    "metrics": metrics.table,
    "settings, top level": settings.top_level,
    "settings": settings.sections,
    "plugins": plugins.listing,
    "house": house.table,
    "limits": limits.table,
}

BLOCK = re.compile(r"(?<=<!-- generated: )(?P<name>[^>]+?)(?P<open> -->\n)(?P<text>.*?)(?=<!-- end -->)", re.DOTALL)


def main() -> int:
    """Returns 1 where `--check` finds something that is not current."""
    wanted = {**schemas(), **man_pages(), **pages()}
    old = [path for path, content in wanted.items() if not path.exists() or path.read_bytes() != content]
    gone = sorted(set(MAN.glob("*.1")) - wanted.keys())
    if "--check" in sys.argv:
        sys.stderr.writelines(f"{path} is not current; run scripts/generate\n" for path in old + gone)
        return 1 if old or gone else 0
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wanted[path])
    for path in gone:
        path.unlink()
    return 0


def schemas() -> dict[Path, bytes]:
    """A JSON Schema for each kind of message."""
    return {ROOT / "docs" / "schema" / f"{kind}.json": json_schema(kind) for kind in KINDS}


def man_pages() -> dict[Path, bytes]:
    """A man page of the program, and one of each command."""
    return {MAN / name: text.encode() for name, text in manual.pages().items()}


def pages() -> dict[Path, bytes]:
    """Every page that has a block, with its blocks as they are to be. Each block of BLOCKS must stand somewhere."""
    texts = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
    used = {match["name"] for text in texts.values() for match in BLOCK.finditer(text)}
    if used != BLOCKS.keys():
        sys.exit(f"blocks that are no page's, or unknown: {', '.join(sorted(used ^ BLOCKS.keys()))}")
    current = {name: make() for name, make in BLOCKS.items()}
    return {path: filled(text, current).encode() for path, text in texts.items() if BLOCK.search(text)}


def filled(text: str, current: Mapping[str, str]) -> str:
    """A page with its blocks replaced."""
    return BLOCK.sub(lambda match: f"{match['name']}{match['open']}\n{current[match['name']]}\n\n", text)


if __name__ == "__main__":
    sys.exit(main())
