"""Pydantic models of record rules and of the section `trace:`, and what no single rule shows of rate classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from gobanfast._core.sampling import MAX_CLASSES
from gobanfast._errors import Problem
from gobanfast.rules.rule import ControllerName, Mode, Rate, RecordAction, Rule
from gobanfast.rules.settings import TraceSettings
from gobanfast.rules.text.conditions import RecordWhen, packed, record_condition
from gobanfast.rules.text.fields import Identifier, Model, Prefixes
from gobanfast.rules.text.record_fields import (
    Cap,
    ClassName,
    InternalHosts,
    Over,
    PerSecond,
    Probability,
    Propagators,
    RateWeight,
)
from gobanfast.rules.text.settings_schema import model_error

OF_CONTROLLER = {
    "fixed": ("probability",), "sla": ("weight",), "target": ("per_second",),
    "boost_on_error": ("probability", "over", "cap"),
}  # fmt: skip
"""Keys of a rate rule by its controller."""
RATED = ("rate_class", "controller", "probability", "weight", "per_second", "over", "cap")


class RecordRuleModel(Model):
    """One entry of `record:`."""

    id: Identifier
    when: Annotated[RecordWhen, BeforeValidator(record_condition)]
    action: RecordAction
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    mode: Mode = "enforce"
    reason: str = ""
    rate_class: ClassName | None = Field(default=None, alias="class")
    controller: ControllerName = "fixed"
    probability: Probability = None
    weight: RateWeight = None
    per_second: PerSecond = None
    over: Over = None
    cap: Cap = None

    @model_validator(mode="after")
    def fits_its_action(self) -> RecordRuleModel:
        given = [name for name in RATED if name in self.model_fields_set]
        if self.action != "rate":
            if given:
                name = given[0].removeprefix("rate_")
                raise model_error(f"'{name}' on action '{self.action}', which has no rate; remove it, or write rate")
            return self
        if self.rate_class is None:
            raise model_error("action 'rate' has no class; name the traffic that has this rate: class: checkout")
        known = OF_CONTROLLER[self.controller]
        for name in given[1:]:
            if name != "controller" and name not in known:
                hint = " and ".join(known)
                raise model_error(
                    f"'{name}' with controller '{self.controller}', which does not ask for it; it takes {hint}"
                )
        if "probability" in known and self.probability is None:
            raise model_error(f"controller '{self.controller}' has no probability; write probability: 1%")
        if self.cap is not None and self.probability is not None and self.cap < self.probability:
            raise model_error(f"cap {self.cap:g} is below probability {self.probability:g}; swap them")
        return self

    def rule(self, source: str, line: int, column: int, names: tuple[str, ...]) -> Rule:
        rate = None
        if self.rate_class is not None:
            rate = Rate(
                self.rate_class, self.controller, self.probability, self.weight, self.per_second, self.over, self.cap
            )
        return Rule(
            self.id, self.action, self.mode, None, self.priority, self.reason, source, line, column,
            self.when.conditions(names), effect="record", rate=rate,
        )  # fmt: skip


class TraceModel(Model):
    """`trace:`: how trace contexts come in and go out."""

    propagators: Propagators = ("tracecontext", "baggage")
    from_untrusted: Literal["restart", "link", "continue"] = Field(
        default="restart", description="what becomes of the context of a client that trust: does not name"
    )
    edge: Prefixes = Field(default_factory=list)
    internal: InternalHosts = Field(default_factory=list)
    traceresponse: bool = Field(default=False, description="tell clients the trace, in the header traceresponse")
    server_timing: bool = Field(default=False, description="tell browsers' pages the trace, in server-timing")

    def settings(self) -> TraceSettings:
        return TraceSettings(
            self.propagators,  # type: ignore[arg-type]  # its validator knows them
            self.from_untrusted,
            packed(self.edge) if self.edge else None,
            tuple(self.internal),
            self.traceresponse,
            self.server_timing,
        )


def rate_problems(rules: list[Rule]) -> Iterator[Problem]:
    """Rate classes that two rules describe differently, and too many of them."""
    first: dict[str, Rule] = {}
    for rule in rules:
        if rule.rate is None:
            continue
        before = first.setdefault(rule.rate.name, rule)
        if before.rate != rule.rate:
            what = f"class '{rule.rate.name}' has another rate than in rule '{before.id}'"
            yield Problem(
                rule.source, rule.line, rule.column, what, "a class has one; give it the same keys, or another name"
            )
    if len(first) > MAX_CLASSES:
        rule = list(first.values())[MAX_CLASSES]
        what = f"{len(first)} rate classes; {MAX_CLASSES} are the most"
        yield Problem(rule.source, rule.line, rule.column, what, "let several rules share a class")
