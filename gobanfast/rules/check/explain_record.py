"""Explanations of what is recorded: the record rule, what its rate follows, and what becomes of the trace context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from gobanfast.rules.check.because import because, place
from gobanfast.rules.rule import Conditions

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.rules.rule import Rule


def record_parts(decision: Decision, by_id: Mapping[str, Rule]) -> Iterator[tuple[str, str]]:
    """(label, text) of the lines on records, for rules that say something of traces."""
    matched = [by_id[name] for name in decision.record_matched]
    yield "record", _answer(decision, by_id)
    if decision.record_rule is not None:
        rule = by_id[decision.record_rule]
        if replace(rule.when, outcome=None) != Conditions() or rule.when.outcome is None:
            for text in because(rule, decision):
                yield "because", text
        if rule.when.outcome is not None:
            yield "because", f"outcome {decision.outcome} is one of {', '.join(rule.when.outcome)}"
        others = [other for other in matched if other.id != rule.id]
        yield "without it", place(others[0]) if others else "no record rule matches"
    context = decision.trace
    if context is not None and context.traceparent is not None:
        yield "trace", f"{context.traceparent}{_origin(decision)}"
    if decision.trace_link is not None:
        yield "trace", f"links to {decision.trace_link.traceparent}, which an untrusted client sent"
    for name in decision.record_shadow:
        yield "shadow", f"would have decided, were it enforced: {place(by_id[name])}"


def _answer(decision: Decision, by_id: Mapping[str, Rule]) -> str:
    if decision.record_rule is None:
        return f"no record rule matches, the request being {decision.outcome}: its trace context goes on as it came"
    rule = by_id[decision.record_rule]
    kept = "the trace is kept" if decision.record else "the trace is not kept"
    if rule.rate is None:
        return f"{kept}: {place(rule)}"
    probability = decision.sampling_probability
    if probability is None:
        return f"{kept}, as the parent says: {place(rule)}"
    controlled = "" if rule.rate.controller == "fixed" else f" now, by controller {rule.rate.controller}"
    return f"{kept}: class {rule.rate.name}, of which {100 * probability:.4g} % are kept{controlled}; {place(rule)}"


def _origin(decision: Decision) -> str:
    context = decision.trace
    if context is None or context.parent_id is None:
        return ", a new trace"
    return f", under the span {context.parent_id} that came"
