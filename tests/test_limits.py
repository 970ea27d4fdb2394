"""The budget page: each bound names a test that exists, and some module keeps it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from edgeinfer.guard import limits
from edgeinfer.guard.memory import total_bytes
from tests.test_security_page import names_of_tests

PACKAGE = Path(__file__).parent.parent / "edgeinfer"


def declared() -> set[str]:
    tree = ast.parse(Path(limits.__file__).read_text())
    return {
        node.targets[0].id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "_bound"
    }


def test_each_bound_names_a_test_that_exists() -> None:
    assert limits.BOUNDS
    assert not {bound.test for bound in limits.BOUNDS} - names_of_tests()


def test_each_bound_is_kept_by_some_module() -> None:
    others = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "limits.py")
    assert len(declared()) == len(limits.BOUNDS)
    assert not {name for name in declared() if not re.search(rf"\b{name}\b", others)}


def tree(root: Path, group: str, **files: str) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 1000 kB\n", "proc/self/cgroup": group, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_the_machines_memory_counts(tmp_path: Path) -> None:
    assert total_bytes(tree(tmp_path, "")) == 1000 << 10


def test_the_least_that_a_group_above_us_allows_counts(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "5000\n"}
    assert total_bytes(tree(tmp_path, "0::/a/b\n", **files)) == 5000


def test_the_first_version_of_groups_and_a_container_that_sees_its_own_as_the_root(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "7000\n"}
    assert total_bytes(tree(tmp_path, "4:cpu,memory:/docker/x\n", **files)) == 7000


def test_what_can_not_be_read_does_not_count(tmp_path: Path) -> None:
    assert total_bytes(tmp_path) > 0
    assert total_bytes(tree(tmp_path, "0::/a\nrubbish\n", **{"sys/fs/cgroup/a/memory.max": "soon\n"})) == 1000 << 10
