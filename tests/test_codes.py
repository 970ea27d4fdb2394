"""The tables of `edgeinfer/codes.py` hold every code that the source uses, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from edgeinfer import codes, messages, types
from edgeinfer.flow import accounting
from edgeinfer.watchdog.supervisor import FINAL
from tests.source_codes import PACKAGE, Module, UnknownError, Use, modules, uses

STAGES = ("name", "stage.name")
"""How the name of a stage that has died is written; see `test_a_stage_that_dies_has_a_code`."""

TABLES: dict[str, Mapping[Any, str]] = {
    "STATES": codes.STATES,
    "DROP_REASONS": codes.DROP_REASONS,
    "SOURCE_REASONS": codes.SOURCE_REASONS,
    "NEWS": codes.NEWS,
    "HEALTH": codes.HEALTH,
    "READINESS": codes.READINESS,
    "CRASHES": codes.CRASHES,
    "CAPTURE_CLOCKS": codes.CAPTURE_CLOCKS,
}


def of_a_source(module: Module) -> bool:
    return module.name.startswith(("flow/capture/", "sources/")) or module.name == "daemon/sourceset.py"


def of_the_daemon(module: Module) -> bool:
    return not of_a_source(module)


def found(wanted: Iterable[Use]) -> set[str]:
    """The codes in some uses. Fails where one can't be seen."""
    seen: set[str] = set()
    for use in wanted:
        try:
            seen |= use.module.codes(use.expression)
        except UnknownError as unknown:
            if str(unknown) not in STAGES:
                pytest.fail(f"{use.place}: it can't be seen which code {unknown} is")
    return seen


def reasons(where: Callable[[Module], bool]) -> set[str]:
    return found(uses("Reason", 0, "code", filter(where, modules())))


@pytest.mark.slow
def test_drop_reasons() -> None:
    """That no other is used is for mypy: `DropReason` is a Literal. That each is used can be seen in the calls."""
    calls = [call for module in modules() for call in module.calls("drop", "give_up", "partial")]
    dropping = [call for call in calls if not is_partial(call) or "drop" in ast.unparse(call.args[0])]
    used = {node.value for call in dropping for node in ast.walk(call) if isinstance(node, ast.Constant)}
    assert used == set(codes.DROP_REASONS)


def is_partial(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "partial"


def test_states() -> None:
    capture = [module for module in modules() if module.name.startswith("flow/capture/")]
    first, _ = accounting.Ledger(lambda: 0).state
    assert found(uses("set_state", 0, "state", capture)) | {first} == set(codes.STATES)


def test_reasons_of_sources() -> None:
    errors = found(uses("CameraError", 0, "code", modules()))
    child = found(uses("Trouble", 1, "code", modules()))
    assert reasons(of_a_source) | errors | child == set(codes.SOURCE_REASONS)


@pytest.mark.slow
def test_news_of_the_daemon_and_reasons_of_health() -> None:
    tables = {*codes.NEWS, *codes.HEALTH, *codes.READINESS}
    assert reasons(of_the_daemon) == tables - stages()
    assert not codes.HEALTH.keys() & codes.READINESS.keys()


@pytest.mark.slow
def test_a_stage_that_dies_has_a_code() -> None:
    assert stages() == codes.HEALTH.keys() - reasons(of_the_daemon)


def stages() -> set[str]:
    """The names of the threads that have a heart, from what they call their base class with."""
    found: set[str] = set()
    for node in (node for module in modules() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)):
        if "Heart(self.name)" in ast.unparse(node) or "Stage" in map(ast.unparse, node.bases):
            begin = next(call for call in ast.walk(node) if isinstance(call, ast.Call) and is_super_init(call))
            given = [*begin.args, *(keyword.value for keyword in begin.keywords)]
            found |= {
                value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)
            }
    return found


def is_super_init(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "super().__init__"


def test_crash_codes() -> None:
    assert found(uses("Crash", -1, "code", modules())) == set(codes.CRASHES)


@pytest.mark.slow
def test_exit_codes() -> None:
    errors = {n for module in modules() for n in numbers(module, assigned(module, "exit_code"))}
    commands = [module for module in modules() if module.name.startswith(("cli", "commands/"))]
    ended = {n for module in commands for n in numbers(module, [*assigned(module, "code"), *returned(module)])}
    assert errors | ended == set(codes.EXIT_CODES)
    assert set(codes.EXIT_CODES) >= FINAL


def assigned(module: Module, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            yield node.value


def returned(module: Module) -> Iterator[ast.expr]:
    """What functions that give an exit code return; others in these files give no whole number."""
    for function in ast.walk(module.tree):
        if isinstance(function, ast.FunctionDef) and ast.unparse(function.returns or ast.Constant(None)) == "int":
            yield from (node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value)


def numbers(module: Module, expressions: Iterable[ast.expr]) -> Iterator[int]:
    """The numbers that stand in some expressions, or behind a name in them."""
    for expression in expressions:
        if isinstance(expression, ast.IfExp):
            yield from numbers(module, [expression.body, expression.orelse])
        elif isinstance(expression, ast.Name):
            yield from numbers(module, (n for n in assigned(module, expression.id) if isinstance(n, ast.Constant)))
        elif isinstance(expression, ast.Constant) and isinstance(expression.value, int):
            yield expression.value


def test_types_and_tables_agree() -> None:
    assert get_args(codes.State) == tuple(codes.STATES)
    assert get_args(codes.DropReason) == tuple(codes.DROP_REASONS)
    assert get_args(codes.CaptureClock) == get_args(types.CaptureClock) == tuple(codes.CAPTURE_CLOCKS)
    assert messages.State == codes.State
    assert accounting.DropReason == codes.DropReason


@pytest.mark.parametrize("name", TABLES)
def test_every_code_has_one_plain_sentence(name: str) -> None:
    for code, sentence in TABLES[name].items():
        assert sentence[0].isupper(), code
        assert sentence.endswith("."), code


def test_the_tables_import_nothing_of_ours() -> None:
    tree = ast.parse((PACKAGE / "codes.py").read_text())
    modules_named = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert modules_named
    assert not [name for name in modules_named if name is None or name.startswith("edgeinfer")]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('Reason("a", "")', {"a"}),
        ('A, B = "a", "b"\nReason(B, "")', {"b"}),
        ('code = "a" if x else "b"\nReason(code, "")', {"a", "b"}),
        ('def f(code):\n    Reason(code, "")\nf("a")\nf("b")', {"a", "b"}),
        ('def f(code="c"):\n    Reason(code, "")\nf()', {"c"}),
        ('def g():\n    return "a" if x else "b"\nReason(g(), "")', {"a", "b"}),
        ('T = (("a", "some text"), ("b", ""))\nfor code, text in T:\n    Reason(code, text)', {"a", "b"}),
        ('T = {1: "a"}\nReason(T.get(key, "b"), "")', {"a", "b"}),
        ("Reason(error.code, error.text)", set()),
    ],
)
def test_codes_are_followed_to_where_they_are_written(text: str, wanted: set[str]) -> None:
    assert found(uses("Reason", 0, "code", [Module(Path("some.py"), text)])) == wanted


def test_a_code_that_can_not_be_seen_is_told() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"some\.py:1: it can't be seen which code"):
        found(uses("Reason", 0, "code", [Module(Path("some.py"), 'Reason(whatever + "x", "")')]))


PACKAGES = {"tensorrt-rtx", "tensorrt-cu", "onnxconverter-common", "jetson-stats"}
"""What else the rules write so."""


def test_problems_of_doctor() -> None:
    """The rules write them as they are: some return a code together with its message."""
    rules = (PACKAGE / "environment").glob("*rules.py")
    nodes = [node for path in rules for node in ast.walk(ast.parse(path.read_text()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    written = {text for text in texts if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+|unreadable", text)}
    assert written - PACKAGES == codes.PROBLEMS.keys()
