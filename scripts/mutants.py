"""How much of a module do the tests notice? Plants one-line defects, one at a time, and runs the tests that fit.

The defects go into a copy of the tree, never into the tree itself. A line for each says where it was, what was changed
and which test noticed, or SURVIVED; the last line gives the share. A survivor is a gap in the tests, or a change that
makes no difference (an equivalent): look at each.

Why not a library: mutmut 3 changes code inside functions alone, so no constant, default or table of a module, and forks
its defects off one process, which programs full of threads take badly. Cosmic Ray changes the files of the work tree
itself, and wants a configuration and a database for each run. What is needed of either is these lines.
"""

from __future__ import annotations

import argparse
import ast
import copy
import fnmatch
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEFT_OUT = (".git", ".venv*", ".*_cache", ".hypothesis", "dist", "build")
"""Of the folder itself; folders further down may have such names for good."""
FAST, SLOW = "not slow and not long", "slow and not long"
NO_TESTS = 5
"""The exit code of pytest where it found no test to run."""

FLIPPED: dict[type[ast.AST], type[Any]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.Break: ast.Continue, ast.Continue: ast.Break,
}  # fmt: skip


class UsageError(Exception):
    """Told in one line."""


@dataclass(frozen=True)
class Mutant:
    """A defect: the line that it begins in, what was changed, and the whole text of the module with it."""

    line: int
    what: str
    text: str


def mutants(text: str) -> list[Mutant]:
    """Every defect that can be planted in a module with this text, in the order of its lines."""
    tree = ast.parse(text)
    found = {}
    for node in _code(tree):
        for new in _changes(node):
            mutant = _planted(text, node, new)
            if mutant.text != text:
                found[mutant.text] = mutant
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.what))


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something: neither docstrings nor annotations, and of f-strings only what they put in."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "format_spec"):
            continue
        for child in value if isinstance(value, list) else [value]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            plain = isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)
            if isinstance(child, ast.AST) and not docstring and not plain:
                yield from _code(child)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    yield from _other_statements(node) if isinstance(node, (ast.stmt, ast.ExceptHandler)) else _other_expressions(node)
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and isinstance(node.test, (ast.Name, ast.Attribute, ast.Call)):
        yield from _with(node, "test", ast.UnaryOp(ast.Not(), node.test))


def _other_expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare() | ast.BoolOp() | ast.BinOp():
            yield from _other_operators(node)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=value):
            yield from (ast.Constant(other) for other in _other_values(value))
        case ast.Call(args=[first, second, *rest]) if not {ast.Starred} & {type(first), type(second)}:
            yield from _with(node, "args", [second, first, *rest])


def _other_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.AugAssign():
            yield from _other_operators(node)
        case ast.Break() | ast.Continue():
            yield FLIPPED[type(node)]()
        case ast.Return(value=value) if value is not None and ast.unparse(value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
        case ast.ExceptHandler(body=body) if not isinstance(body[0], ast.Pass):
            yield from _with(node, "body", [ast.Pass()])


def _with(node: ast.AST, field: str, value: object) -> Iterator[ast.AST]:
    other = copy.copy(node)
    setattr(other, field, value)
    yield other


def _other_operators(node: ast.Compare | ast.BoolOp | ast.BinOp | ast.AugAssign) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            flipped = FLIPPED[type(op)]()
            yield from _with(node, "ops", [*node.ops[:index], flipped, *node.ops[index + 1 :]])
    elif type(node.op) in FLIPPED:
        yield from _with(node, "op", FLIPPED[type(node.op)]())


def _other_values(value: object) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1] if abs(value) <= 16 else [value * 2, value // 2]
    if isinstance(value, float):
        return [value * 2 + 1]
    return [f"{value}?"] if isinstance(value, str) else []


def _planted(text: str, node: Any, new: ast.AST) -> Mutant:
    """The text with one node replaced. The columns of the syntax tree count bytes."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    first, last = node.lineno - 1, node.end_lineno - 1
    old = b"".join(lines[first : last + 1])
    end = len(old) - len(lines[last]) + node.end_col_offset
    before, after = old[: node.col_offset], old[end:]
    code = _code_of(new, node.col_offset, isinstance(node, ast.expr))
    changed = b"".join([*lines[:first], before + code.encode() + after, *lines[last + 1 :]]).decode()
    return Mutant(node.lineno, f"{_short(ast.unparse(node))} → {_short(ast.unparse(new))}", changed)


def _code_of(node: ast.AST, indent: int, expression: bool) -> str:
    code = ast.unparse(ast.fix_missing_locations(node))
    return f"({code})" if expression else code.replace("\n", "\n" + " " * indent)


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


# --- the tests that fit ---


def fitting_tests(root: Path, module: Path) -> list[str]:
    """Test files below `root/tests` that import the module, themselves or through a helper beside them."""
    target = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
    files = sorted((root / "tests").rglob("*.py"))
    imported = {path: _imports(path) for path in files}
    helpers = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path, names in imported.items()
        if target in names and not path.name.startswith(("test_", "conftest"))
    }
    wanted = {target, *helpers}
    return [
        str(path.relative_to(root))
        for path, names in imported.items()
        if path.name.startswith("test_") and wanted & names
    ]


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


class Copy:
    """A copy of the tree, in which one module is changed and tests are run."""

    def __init__(self, root: Path, folder: Path, module: Path, tests: list[str]) -> None:
        shutil.copytree(root, folder, ignore=lambda place, names: _left_out(names, Path(place) == root), symlinks=True)
        self._folder, self._tests = folder, tests
        self._module = folder / module

    def run(self, mutant: str, which: str, limit_s: float | None) -> str | None:
        """Runs the tests that are marked like this against the module's new text.

        Returns what noticed: the first test that failed, or that the time was up; None where all went well.
        """
        self._module.write_text(mutant)
        for stale in self._module.parent.glob(f"__pycache__/{self._module.stem}.*.pyc"):
            stale.unlink()
        output = self._folder / ".mutant-output"
        argv = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", "-m", which, *self._tests]
        environ = {**os.environ, "PYTHONPATH": str(self._folder), "COLUMNS": "300"}
        with output.open("w") as file:
            process = subprocess.Popen(  # noqa: S603 (pytest)
                argv,
                cwd=self._folder,
                env=environ,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return f"the time limit of {limit_s:.0f} s"
            finally:
                _end_group(process)
        if code in (0, NO_TESTS):
            return None
        test = re.search(r"^(?:FAILED|ERROR) (\S+)", output.read_text(), re.MULTILINE)
        return test[1] if test else f"pytest, with exit code {code}"


def _left_out(names: list[str], outermost: bool) -> set[str]:
    patterns = ("__pycache__", *(LEFT_OUT if outermost else ()))
    return {name for pattern in patterns for name in fnmatch.filter(names, pattern)}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the tests, and whatever they started and left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- the command ---


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser("mutants", description="Plants one-line defects and says which the tests notice.")
    parser.add_argument("module", type=Path, help="a Python file below this folder, such as edgeinfer/flow/mailbox.py")
    parser.add_argument("--limit", type=int, metavar="N", help="plant at most N of the defects, drawn at random")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of that draw (1)")
    parser.add_argument(
        "--tests", nargs="+", metavar="TEST", help="files or tests to run (those that import the module)"
    )
    parser.add_argument("--fast", action="store_true", help="leave out tests that are marked slow")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="for one defect (three times what is normal, and 10)"
    )
    parser.add_argument(
        "--fail-under", type=float, default=0, metavar="PERCENT", help="exit with 1 where fewer are noticed"
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Runs the command. Raises UsageError."""
    options, root = parse(argv), Path.cwd()
    module = _module(root, options.module)
    tests = options.tests or fitting_tests(root, module)
    if not tests:
        raise UsageError(f"no test imports {module}: name the tests that run it with --tests")
    text = (root / module).read_text()
    planted = mutants(text)
    if options.limit is not None and options.limit < len(planted):
        planted = random.Random(options.seed).sample(planted, options.limit)  # noqa: S311 (a draw, not a secret)
        planted.sort(key=lambda mutant: mutant.line)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Copy(root, Path(folder) / "tree", module, tests)
        passes = ("fast", FAST), *([] if options.fast else [("slow", SLOW)])
        limits = {which: _limit(tree, text, which, options.timeout) for _, which in passes}
        killed = sum(_told(tree, module, mutant, limits) for mutant in planted)
    share = 100 * killed / len(planted) if planted else 100.0
    print(f"{killed} of {len(planted)} noticed ({share:.1f} %)")
    return int(share < options.fail_under)


def _module(root: Path, path: Path) -> Path:
    if not path.is_file() or path.suffix != ".py":
        raise UsageError(f"{path}: no such Python file")
    if not path.resolve().is_relative_to(root):
        raise UsageError(f"{path} is not below {root}")
    return path.resolve().relative_to(root)


def _limit(tree: Copy, text: str, which: str, asked_s: float | None) -> float:
    """The time limit for one defect, of how long the tests take without. Raises UsageError where they fail."""
    started = time.monotonic()
    failed = tree.run(text, which, None)
    if failed is not None:
        raise UsageError(f"without any defect the tests fail already: {failed}")
    return asked_s or 10 + 3 * (time.monotonic() - started)


def _told(tree: Copy, module: Path, mutant: Mutant, limits: dict[str, float]) -> bool:
    """Runs the fast tests, then the slow; says what came of it."""
    noticed = next(filter(None, (tree.run(mutant.text, which, limit_s) for which, limit_s in limits.items())), None)
    print(f"{module}:{mutant.line}: {mutant.what}: {f'killed by {noticed}' if noticed else 'SURVIVED'}", flush=True)
    return noticed is not None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        print(f"mutants: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
