"""Inline tests of a rules file: requests with the decision they must get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from gobanfast._dataclass import dataclass
from gobanfast._errors import Problem

if TYPE_CHECKING:
    from gobanfast._core.engine_core import EngineCore

Expected = Literal["allow", "challenge", "ban"]
SIGNALS = ("sni", "ja4", "headers", "method", "path", "mount")
"""What a test may say of a request besides its address; keyword arguments of `Engine.peek`."""


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of `tests:`: a request and the expected answer. `rule` is an id, "" for "no rule decides", or None."""

    source: str
    line: int
    column: int
    expect: Expected
    address: str | None = None
    sni: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    method: str | None = None
    path: str | None = None
    rule: str | None = None
    ja4: str | None = None
    mount: str | None = None

    def request(self) -> dict[str, Any]:
        """The signals that are given, as keyword arguments of `Engine.peek`."""
        given = {name: getattr(self, name) for name in SIGNALS if getattr(self, name) is not None}
        if self.headers is not None:
            given["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        return given


def run(cases: Iterable[Case], engine: EngineCore) -> list[Problem]:
    """A problem for every test that the rules in `engine` fail."""
    problems = []
    for case in cases:
        decision = engine.peek(case.address, **case.request())
        found = f"{decision.action} by {_rule(decision.rule)}"
        if case.rule is not None and (decision.rule or "") != case.rule:
            message = f"test expects {case.expect} by {_rule(case.rule or None)}, the rules say {found}"
        elif decision.action != case.expect:
            message = f"test expects {case.expect}, the rules say {found}"
        else:
            continue
        matched = ", ".join(decision.matched) or "none"
        problems.append(
            Problem(case.source, case.line, case.column, message, f"rules that match, in order: {matched}",
                    code="failed-test")
        )  # fmt: skip
    return problems


def _rule(rule: str | None) -> str:
    return "no rule" if rule is None else f"rule '{rule}'"
