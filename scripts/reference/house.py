"""docs/architecture.md: the modules and folders of the package, from top to bottom, each in its own words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from reference.plugins import first_paragraph
from reference.tables import table as markdown

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "edgeinfer"


def table() -> str:
    """A row for each module at the root and each folder, in the order in which they may import each other."""
    rows = (row for storey in storeys() for name in storey.split() for row in described(name))
    return markdown(("where", "what"), rows)


def storeys() -> list[str]:
    """Top to bottom, as the test that holds them says."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STOREYS":
            rows: list[str] = ast.literal_eval(node.value)
            return rows
    raise LookupError("STOREYS")


def described(name: str) -> Iterator[tuple[str, str]]:
    """A module, or a folder and the folders in it that are packages."""
    module = PACKAGE / f"{name}.py"
    if module.exists():
        yield f"`{name}.py`", sentence(module)
        return
    for path in sorted((PACKAGE / name).rglob("__init__.py")):
        yield f"`{path.parent.relative_to(PACKAGE).as_posix()}/`", sentence(path)


def sentence(path: Path) -> str:
    """What a file says that it is for."""
    return first_paragraph(ast.get_docstring(ast.parse(path.read_text())))
