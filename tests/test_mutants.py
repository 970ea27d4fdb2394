"""Planted defects: the good test notices them, the weak one does not, and the work tree is never touched."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "mutants.py"
SOURCE = '"""Prices."""\n\n\ndef is_dear(price: int = 0) -> bool:\n    """In cents."""\n    return price > 3\n'
GOOD = """from shop.price import is_dear

def test_every_case():
    assert [is_dear(price) for price in (3, 4)] == [False, True]
    assert is_dear() is False
"""
WEAK = "import shop.price\n\ndef test_it_runs():\n    shop.price.is_dear(1)\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants_script"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package with one module, and a test that is good or weak."""
    for folder in ("shop/build", "tests", "build"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "price.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_good.py").write_text(GOOD)
    (tmp_path / "tests" / "test_other.py").write_text("import shop\n")
    return tmp_path


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}  # which start in no time
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=tree, capture_output=True, text=True, check=False, env=environ
    )


@pytest.mark.slow
def test_a_good_test_notices_and_a_weak_one_does_not(tree: Path) -> None:
    done = run(tree, "shop/price.py", "--fail-under", "60", "--fast")
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    killed = "killed by tests/test_good.py::test_every_case"
    assert told == [
        "shop/price.py:4: 0 → -1: SURVIVED",
        "shop/price.py:4: 0 → 1: SURVIVED",
        f"shop/price.py:6: 3 → 2: {killed}",
        f"shop/price.py:6: 3 → 4: {killed}",
        f"shop/price.py:6: price > 3 → price >= 3: {killed}",
        f"shop/price.py:6: return price > 3 → return None: {killed}",
        "4 of 6 noticed (66.7 %)",
    ]
    assert (tree / "shop" / "price.py").read_text() == SOURCE

    (tree / "tests" / "test_good.py").write_text(WEAK)
    done = run(tree, "shop/price.py", "--fail-under", "60", "--limit", "1", "--seed", "3", "--fast")
    told = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line.rpartition(": ")[2] for line in told[:-1]] == ["SURVIVED"]
    assert told[-1] == "0 of 1 noticed (0.0 %)"


@pytest.mark.slow
def test_what_hangs_is_ended_and_noticed(tree: Path) -> None:
    (tree / "shop" / "price.py").write_text("def once(n):\n    while n:\n        break\n")
    (tree / "tests" / "test_good.py").write_text("from shop.price import once\n\ndef test_it():\n    once(3)\n")
    done = run(tree, "shop/price.py", "--timeout", "3", "--fast")
    assert "shop/price.py:3: break → continue: killed by the time limit of 3 s" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shop/pricing.py"], "shop/pricing.py: no such Python file"),
        ([__file__], "is not below"),
        (["tests/test_good.py"], "no test imports tests/test_good.py"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    script: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(script.UsageError, match=says) as told:
        script.main(arguments)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_tests_that_fail_anyway_are_an_error(tree: Path) -> None:
    (tree / "tests" / "test_good.py").write_text(GOOD.replace("is False", "is True"))
    done = run(tree, "shop/price.py")
    assert done.returncode == 2
    assert done.stderr == (
        "mutants: error: without any defect the tests fail already: tests/test_good.py::test_every_case\n"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a < b", {"a <= b"}),
        ("a in b", {"a not in b"}),
        ("a == b != c", {"a != b != c", "a == b == c"}),
        ("a and b", {"a or b"}),
        ("x = not a", {"x = a"}),
        ("x = 7", {"x = 8", "x = 6"}),
        ("x = 300", {"x = 600", "x = 150"}),
        ("x = True", {"x = False"}),
        ("x = 'é' + b", {"x = 'é' - b", "x = 'é?' + b"}),
        ("x += a", {"x -= a"}),
        ("a.close()", {"pass"}),
        ("a(b, c)", {"a(c, b)", "pass"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("while a:\n    break", {"while a:\n    continue", "while not a:\n    pass"}),
        ("try:\n    a\nexcept E:\n    b = c", {"try:\n    a\nexcept E:\n    pass"}),
        ("raise E", {"pass"}),
        ('"""Text."""\nx: int\nx = f"a{b}c"', set()),
    ],
)
def test_each_kind_of_defect(script: ModuleType, code: str, expected: set[str]) -> None:
    def plain(text: str) -> str:
        return text.replace("(", "").replace(")", "").replace("break", "pass")

    assert {plain(mutant.text) for mutant in script.mutants(code)} >= {plain(text) for text in expected}
    assert bool(script.mutants(code)) == bool(expected)


def test_every_defect_is_one_change_that_compiles(script: ModuleType) -> None:
    text = (SCRIPT.parent.parent / "edgeinfer" / "flow" / "mailbox.py").read_text()
    mutants = script.mutants(text)
    assert len({mutant.text for mutant in mutants}) == len(mutants) > 50
    for mutant in mutants:
        compile(mutant.text, "mutant", "exec")


def test_tests_fit_that_import_the_module_or_a_helper_that_does(script: ModuleType, tree: Path) -> None:
    (tree / "tests" / "helper.py").write_text("from shop import price\n")
    (tree / "tests" / "test_through.py").write_text("from tests.helper import x\n")
    assert script.fitting_tests(tree, Path("shop/price.py")) == ["tests/test_good.py", "tests/test_through.py"]


def test_what_is_built_stays_behind_and_a_package_called_build_comes_along(script: ModuleType, tree: Path) -> None:
    target = tree.with_name("target")
    script.Copy(tree, target, Path("shop/price.py"), [])
    assert (target / "shop" / "build").is_dir()
    assert not (target / "build").exists()
