"""docs/security.md names a test for every decision; they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text()


def names_of_tests() -> set[str]:
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert not named - names_of_tests()


def test_every_decision_names_a_test() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| ") and "threat | decision" not in line:
            assert "`test_" in line, line
