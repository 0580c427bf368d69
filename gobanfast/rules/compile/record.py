"""Compiler of record rules: which rule decides for each outcome, and the rate classes with their controllers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gobanfast._core.enums import OUTCOMES, RECORDED
from gobanfast.rules.settings import TraceSettings

if TYPE_CHECKING:
    from gobanfast._core.record_table import RecordTable
    from gobanfast.rules.controllers import Controller
    from gobanfast.rules.rule import Rate, Rule


def record_table(rules: Sequence[Rule], bits: int, trace: TraceSettings | None) -> RecordTable | None:
    """What decides which traces are kept; None where rules say nothing of traces.

    Args:
        bits: how many there are in a vector, those of resources included.
    """
    places = [(place, rule) for place, rule in enumerate(rules) if rule.effect == "record"]
    if not places and trace is None:
        return None
    from gobanfast._core.record_table import RecordTable

    words = bits // 64 + 1
    settings = TraceSettings() if trace is None else trace
    rows = b"".join(
        sum(1 << place for place, rule in places if rule.mode == "enforce" and _may_be(rule, outcome)).to_bytes(
            8 * words, "little"
        )
        for outcome in OUTCOMES
    )
    rates = rates_of(rules)
    return RecordTable(
        kinds=bytes(RECORDED.index(rule.action) for _, rule in places),
        rows=rows,
        words=words,
        classes=tuple(None if rule.rate is None else rule.rate.name for _, rule in places),
        thresholds={name: _threshold(rate) for name, rate in rates.items()},
        fixed=[name for name, rate in rates.items() if rate.controller == "fixed"],
        propagators=settings.propagators,
        stranger=settings.from_untrusted,
        edge=_edge(settings),
        internal=_internal(settings),
        traceresponse=settings.traceresponse,
        server_timing=settings.server_timing,
    )


def rates_of(rules: Iterable[Rule]) -> dict[str, Rate]:
    """The rate classes, by name; rules of one class have one rate."""
    return {rule.rate.name: rule.rate for rule in rules if rule.rate is not None}


def controllers_of(rules: Iterable[Rule]) -> dict[str, Controller]:
    """The controller of each rate class."""
    return {name: controller_of(rate) for name, rate in rates_of(rules).items()}


def controller_of(rate: Rate) -> Controller:
    """What sets the threshold of a class. ValueError: a number out of range."""
    from gobanfast.rules.controllers import BoostOnError, Fixed, Sla, Target

    if rate.controller == "sla":
        return Sla() if rate.weight is None else Sla(rate.weight)
    if rate.controller == "target":
        return Target() if rate.per_second is None else Target(rate.per_second)
    probability = 1.0 if rate.probability is None else rate.probability
    if rate.controller == "fixed":
        return Fixed(probability)
    given = {name: value for name in ("over", "cap") if (value := getattr(rate, name)) is not None}
    return BoostOnError(probability, **given)


def trace_headers(rules: Iterable[Rule], trace: TraceSettings | None) -> tuple[str, ...]:
    """Names of the request headers that every grant allows, because a trace of the request may be kept."""
    return headers_of(rules, (TraceSettings() if trace is None else trace).propagators)


def headers_of(rules: Iterable[Rule], propagators: Sequence[str]) -> tuple[str, ...]:
    """The same by the propagators."""
    if not any(rule.effect == "record" and rule.mode == "enforce" and rule.action != "never" for rule in rules):
        return ()
    from gobanfast._core.trace_carriers import names_of

    return names_of(propagators)


def _may_be(rule: Rule, outcome: str) -> bool:
    return rule.when.outcome is None or outcome in rule.when.outcome


def _threshold(rate: Rate) -> int:
    from gobanfast.rules.controllers import threshold_for

    return threshold_for(controller_of(rate).initial)


def _edge(settings: TraceSettings) -> object:
    if settings.edge is None:
        return None
    from gobanfast._core.prefix_set import PrefixSet

    return PrefixSet.from_packed(settings.edge.addresses, settings.edge.lengths)


def _internal(settings: TraceSettings) -> object:
    if not settings.internal:
        return None
    from gobanfast._core.name_table import NameTable

    return NameTable([(name, 0) for name in settings.internal])
