"""Which codes the source uses, read from its syntax trees. `test_codes.py` holds the tables against them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "edgeinfer"
CODE = re.compile(r"[a-z]+(?:[_-][a-z]+)*")
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class UnknownError(Exception):
    """It can't be seen in the source which strings an expression may be."""


@dataclass(frozen=True)
class Use:
    """An expression that gives a code, and where it stands."""

    expression: ast.expr
    module: Module

    @property
    def place(self) -> str:
        """File and line, for people."""
        return f"{self.module.name}:{self.expression.lineno}"


class Module:
    """One file of the package. Expressions in it are followed through names, parameters, returns and tables."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.name = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
        self.tree = ast.parse(path.read_text() if text is None else text)
        self._parents = {id(child): node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def calls(self, *names: str) -> Iterator[ast.Call]:
        """Every call of a function, class or method with one of these names."""
        return (node for node in self._calls if _called(node) in names)

    def codes(self, expression: ast.expr, within: frozenset[str] = frozenset()) -> set[str]:
        """The strings that an expression may be. A `.code` that is only passed on counts as none.

        Raises UnknownError where that can't be seen.
        """
        match expression:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp(body=body, orelse=orelse):
                return self.codes(body, within) | self.codes(orelse, within)
            case ast.Attribute(attr="code") | ast.Subscript(slice=ast.Constant(value="code")):
                return set()
            case ast.Name(id=name):
                return self._named(name, expression, within)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get"), args=[_, default]):
                return self._table(table) | self.codes(default, within)
            case ast.Call():
                return self._returned(_called(expression), within)
        raise UnknownError(ast.unparse(expression))

    @cached_property
    def _calls(self) -> list[ast.Call]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def _named(self, name: str, where: ast.expr, within: frozenset[str]) -> set[str]:
        if name in within:
            return set()
        within = within | {name}
        scope = self._function(where)
        if scope is not None and name in _parameters(scope):
            return self._passed(scope, name, within)
        for inside in (scope, self.tree):
            found = list(_assigned(inside, name)) if inside is not None else []
            if found:
                return set().union(*(self.codes(value, within) for value in found))
        loop = self._loop(where, name)
        if isinstance(loop, ast.Name):
            return self._table(loop.id)
        raise UnknownError(name)

    def _passed(self, function: Function, name: str, within: frozenset[str]) -> set[str]:
        """What the callers of a function in this file give for a parameter, and its default."""
        called = self._parents[id(function)] if getattr(function, "name", "") == "__init__" else function
        names = [arg.arg for arg in function.args.args if arg.arg != "self"]
        given = [_argument(call, names.index(name), name) for call in self.calls(getattr(called, "name", ""))]
        defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
        values = [value for value in (*given, defaults.get(name)) if value is not None]
        if not values:
            raise UnknownError(name)
        return set().union(*(self.codes(value, within) for value in values))

    def _returned(self, name: str, within: frozenset[str]) -> set[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                values = [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value]
                return set().union(*(self.codes(value, within) for value in values))
        raise UnknownError(name)

    def _table(self, name: str) -> set[str]:
        """The words in a table of the module that look like codes; keys of a dictionary are none."""
        found: set[str] = set()
        for value in _assigned(self.tree, name):
            parts = value.values if isinstance(value, ast.Dict) else [value]
            for node in (node for part in parts for node in ast.walk(part)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                    found.add(node.value)
        return found

    def _loop(self, where: ast.expr, name: str) -> ast.expr | None:
        """What the loop around an expression goes over, where `name` is one of its targets."""
        node: ast.AST | None = where
        while node is not None:
            if isinstance(node, ast.For) and name in _names(node.target):
                return node.iter
            node = self._parents.get(id(node))
        return None

    def _function(self, node: ast.AST) -> Function | None:
        parent = self._parents.get(id(node))
        while parent is not None and not isinstance(parent, Function):
            parent = self._parents.get(id(parent))
        return parent


@cache
def modules() -> tuple[Module, ...]:
    """Every file of the package but the tables themselves."""
    return tuple(Module(path) for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "codes.py")


def uses(name: str, index: int, keyword: str, among: Iterable[Module]) -> Iterator[Use]:
    """What is given for an argument of `name`, wherever that is called."""
    for module in among:
        for call in module.calls(name):
            value = _argument(call, index, keyword)
            if value is not None:
                yield Use(value, module)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def _argument(call: ast.Call, index: int, keyword: str) -> ast.expr | None:
    if 0 <= index < len(call.args):
        return call.args[index]
    return next((item.value for item in call.keywords if item.arg == keyword), None)


def _parameters(function: Function) -> set[str]:
    return {arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)}


def _names(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _assigned(scope: ast.AST, name: str) -> Iterator[ast.expr]:
    """The values that a name gets in a function, or at the top of a module."""
    body = ast.walk(scope) if isinstance(scope, Function) else iter(getattr(scope, "body", ()))
    for node in body:
        if isinstance(node, ast.AnnAssign) and node.value is not None and _names(node.target) == {name}:
            yield node.value
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id == name:
                yield node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from (value for part, value in pairs if isinstance(part, ast.Name) and part.id == name)
