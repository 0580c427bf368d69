"""Importer of Jaeger's sampling strategies (`strategies.json`): rate classes of one service.

An operation that is an HTTP route, such as `/health` or `GET /users/{id}`, is a class with a path; of another one there
is a warning. An operation of the service comes before one of `default_strategy` with the same name, as in Jaeger.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.text import yaml_nodes

DEFAULT = 0.001  # Jaeger's, where the file has none
_ROUTE = re.compile(r"(?:(?P<method>[A-Z]{3,16}) )?(?P<path>/\S*)")
_PARAMETER = re.compile(r"\{[^{}/]*\}|<[^<>/]*>|(?<=/):[A-Za-z_]\w*")
_KEYS = {
    "file": ("default_strategy", "service_strategies"),
    "service": ("service", "type", "param", "operation_strategies"),
    "default": ("type", "param", "operation_strategies"),
    "operation": ("operation", "type", "param"),
}


@dataclass(frozen=True, slots=True)
class RateClass:
    """A record rule with `action: rate` and its class: conditions, controller and what the controller needs.

    `path` is a glob, None: every path; `method` None: every method. `fixed` has `probability`, `target` `per_second`:
    of a host, where Jaeger's is of a process.
    """

    name: str
    path: str | None
    method: str | None
    controller: Literal["fixed", "target"]
    probability: float | None = None
    per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Strategies:
    """Rate classes in the order in which rules ask them, the last for the rest; and warnings of what has no class."""

    classes: tuple[RateClass, ...]
    warnings: tuple[Problem, ...]


def read_strategies(text: str, *, service: str, source: str = "strategies.json") -> Strategies:
    """The rate classes of a service.

    Args:
        text: of strategies.json.
        service: by its name in the file; one that the file does not have is sampled by `default_strategy`.
        source: the file, for messages.
    Raises:
        RuleError: not JSON, or strategies that Jaeger would not take; with all problems.
    """
    return _Reader(text, source).strategies(service)


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        try:
            self.data: Any = json.loads(text)
        except RecursionError:
            raise RuleError([Problem(source, 1, 1, "not JSON: nested too deep")]) from None
        except json.JSONDecodeError as error:
            raise RuleError([Problem(source, error.lineno, error.colno, f"not JSON: {error.msg.lower()}")]) from None
        self.root = yaml_nodes.read(text.replace("\t", " "), source)  # JSON is YAML but for its tabs; for the places

    def strategies(self, service: str) -> Strategies:
        file = self.mapping(self.data, (), "file") or {}
        default = self.mapping(file.get("default_strategy", {}), ("default_strategy",), "default") or {}
        listed = self.items(file, "service_strategies", ())
        classes = self.classes(default, ("default_strategy",))
        found: list[RateClass] | None = None
        named: set[str] = set()
        for i, item in enumerate(listed):
            place = ("service_strategies", i)
            own = self.mapping(item, place, "service")
            if own is None:
                continue
            name = self.name(own, "service", place)
            if name and name in named:
                self.report((*place, "service"), f"service '{name}' is listed twice", "merge its strategies")
            named.add(name)
            told = len(self.warnings)
            theirs = self.classes(own, place)
            if name == service:
                found = theirs
            else:
                del self.warnings[told:]
        if found is not None:  # its last class stands for the rest, so that of the default counts no more
            taken = {item.name for item in found}
            classes = [*found[:-1], *(item for item in classes[:-1] if item.name not in taken), found[-1]]
        if self.problems:
            raise RuleError(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))
        return Strategies(tuple(classes), tuple(self.warnings))

    def classes(self, strategy: dict[str, Any], place: tuple[str | int, ...]) -> list[RateClass]:
        """Classes of one strategy; that of the rest is the last."""
        classes: dict[str, RateClass] = {}
        for i, item in enumerate(self.items(strategy, "operation_strategies", place)):
            where = (*place, "operation_strategies", i)
            operation = self.mapping(item, where, "operation")
            if operation is None:
                continue
            name = self.name(operation, "operation", where)
            if operation.get("type") == "ratelimiting":
                self.report((*where, "type"), "an operation cannot be ratelimiting", "write probabilistic")
                continue
            numbers = self.numbers(operation, where)
            route = _ROUTE.fullmatch(name)
            if route is None:
                self.warn((*where, "operation"), f"operation '{name}' is no HTTP route; it gets no class")
            elif numbers:
                path = _PARAMETER.sub("*", route["path"])
                classes[name] = RateClass(name, path, route["method"], *numbers)
        rest = self.numbers(strategy, place) if "type" in strategy or "param" in strategy else ("fixed", DEFAULT, None)
        return [*classes.values(), RateClass("rest", None, None, *(rest or ("fixed", DEFAULT, None)))]

    def numbers(
        self, strategy: dict[str, Any], place: tuple[str | int, ...]
    ) -> tuple[Literal["fixed", "target"], float | None, float | None] | None:
        """(controller, probability, per second) of a strategy."""
        kind, number = strategy.get("type"), strategy.get("param")
        if kind not in {"probabilistic", "ratelimiting"}:
            self.report((*place, "type"), f"type is {_quoted(kind)}", "write probabilistic or ratelimiting")
            return None
        highest = 1 if kind == "probabilistic" else 1e9
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= highest:
            self.report((*place, "param"), f"param is {_quoted(number)}", f"give a number from 0 to {highest:g}")
            return None
        return ("fixed", float(number), None) if kind == "probabilistic" else ("target", None, float(number))

    def mapping(self, value: Any, place: tuple[str | int, ...], kind: str) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self.report(place, f"{kind} is {_quoted(value)}", "write a mapping")
            return None
        for key in value.keys() - set(_KEYS[kind]):
            line, column = self.root.key_place((*place, key))
            self.problems.append(
                Problem(self.source, line, column, f"unknown key '{key}'", f"known keys: {', '.join(_KEYS[kind])}")
            )
        return value

    def items(self, value: dict[str, Any], key: str, place: tuple[str | int, ...]) -> list[Any]:
        found = value.get(key) or []
        if not isinstance(found, list):
            self.report((*place, key), f"{key} is {_quoted(found)}", "write a list")
            return []
        return found

    def name(self, value: dict[str, Any], key: str, place: tuple[str | int, ...]) -> str:
        found = value.get(key)
        if not isinstance(found, str) or not found:
            self.report((*place, key), f"{key} is {_quoted(found)}", "write its name")
            return ""
        return found

    def report(self, place: tuple[str | int, ...], message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.source, *self.root.place(place), message, hint))

    def warn(self, place: tuple[str | int, ...], message: str) -> None:
        line, column = self.root.place(place)
        self.warnings.append(
            Problem(self.source, line, column, message, severity="warning", code="operation-without-path")
        )


def _quoted(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"'{value[:80]}'" if isinstance(value, str) else str(value).lower()
