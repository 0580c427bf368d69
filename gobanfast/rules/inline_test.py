"""Inline tests of a rules file: requests with the decision they must get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from gobanfast._dataclass import dataclass
from gobanfast._errors import Problem
from gobanfast.rules.rule import Outcome

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast._core.engine_core import EngineCore

Expected = Literal["allow", "challenge", "ban"]
Shared = Literal["granted", "withheld", "refused", "none"]
Recorded = Literal["always", "never", "rate", "none"]
SIGNALS = ("sni", "ja4", "headers", "method", "path", "mount", "scheme")
"""What a test may say of a request besides its address; keyword arguments of `Engine.peek`."""


TESTED = "inline test"
"""The value of a session that a test has, and who is logged in in one with labels."""


@dataclass(frozen=True, slots=True)
class Case:
    """One entry of `tests:`: a request and the expected answer. `rule` is an id, "" for "no rule decides", or None; of
    the share or record rule where only that is expected. `outcome` stands for the one that the rules come to."""

    source: str
    line: int
    column: int
    expect: Expected | None
    address: str | None = None
    sni: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    method: str | None = None
    path: str | None = None
    rule: str | None = None
    ja4: str | None = None
    mount: str | None = None
    scheme: str | None = None
    share: Shared | None = None
    record: Recorded | None = None
    outcome: Outcome | None = None
    session: Literal["present", "absent"] | None = None
    labels: tuple[str, ...] = ()
    uid: str | None = None

    def request(self) -> dict[str, Any]:
        """The signals that are given, as keyword arguments of `Engine.peek`."""
        given = {name: getattr(self, name) for name in SIGNALS if getattr(self, name) is not None}
        if self.headers is not None:
            given["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        if self.session is not None:
            given["session"] = TESTED if self.session == "present" else ""
        if self.uid is not None or self.labels:
            given["uid"] = self.uid or TESTED
        return given


def run(cases: Iterable[Case], engine: EngineCore) -> list[Problem]:
    """A problem for every test that the rules in `engine` fail."""
    problems = []
    for case in cases:
        decision = _decided(case, engine)
        if case.expect is not None:
            matched = ", ".join(decision.matched) or "none"
            wrong = _unlike(case.expect, decision.action, case.rule, decision.rule)
            if wrong:
                problems.append(_failed(case, wrong, f"rules that match, in order: {matched}"))
        if case.share is not None:
            expected = case.rule if case.expect is None else None
            wrong = _unlike(case.share, decision.share or "none", expected, decision.share_rule)
            if wrong:
                matched = ", ".join(decision.share_matched) or "none"
                hint = f"share rules that match, in order: {matched}{_besides(case, decision)}"
                problems.append(_failed(case, wrong, hint))
        if case.record is not None:
            problems += _record_problems(case, decision)
    return problems


def _decided(case: Case, engine: EngineCore) -> Decision:
    """The decision about the request of a case, whose user carries its labels."""
    from gobanfast.bans import uid_key

    given = case.request()
    if engine.compiled.live is not None:
        given.setdefault("session", "")
    labels, key = engine.ban_table.labels, uid_key(case.uid or TESTED)
    for word in case.labels:
        labels.add(key, word, duration=None)
    decision = engine.peek(case.address, **given)
    for word in case.labels:
        labels.remove(key, word)
    return decision


def _record_problems(case: Case, decision: Decision) -> list[Problem]:
    from gobanfast._core.decision import record_rule_for

    outcome = case.outcome or decision.outcome
    found = record_rule_for(decision, outcome)
    expected = case.rule if case.expect is None and case.share is None else None
    kind, rule = ("none", None) if found is None else (found.action, found.id)
    wrong = _unlike(case.record or "", kind, expected, rule)
    if not wrong:
        return []
    matched = ", ".join(decision.record_matched) or "none"
    return [_failed(case, wrong, f"the request was {outcome}; record rules that match, in order: {matched}")]


def _besides(case: Case, decision: Decision) -> str:
    """What else decides about sharing, where the rules that match do not say it."""
    if decision.ungranted is not None:
        key = "methods" if decision.ungranted == "method" else "headers"
        return f"; {decision.ungranted} not granted: add it to its {key}:"
    if decision.share is None and decision.origin is None:
        return "; the test has no origin, so no page asks"
    if decision.share == "refused" and _lacks_host(case, decision):
        return "; the test has no host, write headers: {host: ...}"
    if decision.share is None:
        return "; no grant or withhold is about this resource"
    if decision.share != "withheld" or decision.share_matched:
        return ""
    return _never_sent(case) or "; other rules own it"


def _never_sent(case: Case) -> str:
    """What is wrong with the test's origin, where no browser writes one like it."""
    from gobanfast.origins import PatternError, parse_origin_pattern

    for name, value in case.headers or ():
        if name.lower() == "origin" and value != "null":
            try:
                parse_origin_pattern(value)
            except PatternError as error:
                return f"; {str(error).replace('origin pattern', 'origin', 1)}"
    return ""


def _lacks_host(case: Case, decision: Decision) -> bool:
    """Whether what refused compares the host, and the test says none."""
    rule = next(rule for rule in decision.compiled.rules if rule.id == decision.share_rule)
    compares = rule.when.negated is not None and rule.when.negated.host is not None
    return compares and all(name.lower() != "host" for name, _ in case.headers or ())


def _unlike(expected: str, found: str, rule: str | None, by: str | None) -> str | None:
    """What differs, in words."""
    if rule is not None and (by or "") != rule:
        return f"test expects {expected} by {_rule(rule or None)}, the rules say {found} by {_rule(by)}"
    return None if expected == found else f"test expects {expected}, the rules say {found} by {_rule(by)}"


def _failed(case: Case, message: str, hint: str) -> Problem:
    return Problem(case.source, case.line, case.column, message, hint, code="failed-test")


def _rule(rule: str | None) -> str:
    return "no rule" if rule is None else f"rule '{rule}'"
