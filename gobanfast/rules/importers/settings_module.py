"""Reader of a Django settings module: its syntax tree, never executed; literal values alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.importers.notes import Notes

PREFIX = "CORS_"
DEFAULTS = {
    "default_headers": ("accept", "authorization", "content-type", "user-agent", "x-csrftoken", "x-requested-with"),
    "default_methods": ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"),
}
"""Names of `corsheaders.defaults`, which settings extend: `(*default_headers, "x-key")`."""


class _NotLiteralError(ValueError):
    """A value that only running the module would tell."""


def read_module(text: str, source: str, notes: Notes) -> dict[str, object]:
    """The settings of django-cors-headers that stand on the outermost level of the module, with literal values.

    Warns of each that is no literal, stands under a condition, or comes from another module.

    Raises:
        RuleError: the text is no Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line, column = getattr(error, "lineno", 0) or 0, getattr(error, "offset", 0) or 0
        raise RuleError([Problem(source, line, column, f"the file is no Python: {error}")]) from None
    found: dict[str, Any] = {}
    read: set[ast.AST] = set()
    for statement in tree.body:
        for target, value, adds in _assigned(statement):
            read.add(target)
            try:
                made = _literal(value)
                found[target.id] = found[target.id] + type(found[target.id])(made) if adds else made
            except (_NotLiteralError, KeyError, TypeError, RecursionError):
                found.pop(target.id, None)
                _unread(notes, target.id, statement, "is no literal value, and settings are not run")
    for node in ast.walk(tree):
        for name, why in _elsewhere(node):
            if node not in read:
                _unread(notes, name, node, why)
    return found


def _unread(notes: Notes, name: str, node: ast.AST, why: str) -> None:
    line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", -1) + 1
    notes.warn(f"{name} was not read: it {why}", "give its value as JSON", line, column)


def _assigned(node: ast.AST) -> Iterator[tuple[ast.Name, ast.expr, bool]]:
    """Target, value and "adds to what is there" of every setting that a statement assigns."""
    if isinstance(node, ast.Assign):
        targets, value, adds = node.targets, node.value, False
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets, value, adds = [node.target], node.value, False
    elif isinstance(node, ast.AugAssign):
        targets, value, adds = [node.target], node.value, True
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name) and target.id.startswith(PREFIX):
            yield target, value, adds


def _elsewhere(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Names of settings that a node changes or brings in, and how."""
    if isinstance(node, ast.Name) and node.id.startswith(PREFIX) and not isinstance(node.ctx, ast.Load):
        yield node.id, "is under a condition, in a function or beside another"
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id.startswith(PREFIX):
        yield f"{node.value.id}.{node.attr}", "is code, and settings are not run"
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if alias.name == "*":
                yield f"import * from {node.module or '.'}", "may bring in settings"
            elif (alias.asname or alias.name).startswith(PREFIX):
                yield alias.asname or alias.name, "comes from another module"


def _literal(node: ast.expr) -> Any:
    """The value of an expression made of literals, `+`, list(), tuple(), re.compile() and the names in DEFAULTS."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, bool)):
        return node.value
    if isinstance(node, ast.Name) and node.id in DEFAULTS:
        return DEFAULTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_literal(node.operand)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        items: list[Any] = []
        for item in node.elts:
            if isinstance(item, ast.Starred):
                items += _literal(item.value)
            else:
                items.append(_literal(item))
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left) + _literal(node.right)
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        called = ast.unparse(node.func)
        if called == "re.compile":
            return _literal(node.args[0])
        if called in {"list", "tuple"}:
            return {"list": list, "tuple": tuple}[called](_literal(node.args[0]))
    raise _NotLiteralError
