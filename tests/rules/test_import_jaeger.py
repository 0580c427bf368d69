"""Record rules made of Jaeger's strategies.json: rates, routes and the rest, and what they decide."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gobanfast import Engine, RuleError, Ruleset
from gobanfast.rules.importers import import_rules

STRATEGIES = {
    "service_strategies": [
        {
            "service": "shop", "type": "ratelimiting", "param": 5,
            "operation_strategies": [
                {"operation": "POST /orders/{id}/pay", "type": "probabilistic", "param": 1},
                {"operation": "/health", "type": "probabilistic", "param": 0.0},
                {"operation": "/Health/", "type": "probabilistic", "param": 0.25},
                {"operation": "Orders.Charge", "type": "probabilistic", "param": 0.4},
            ],
        },
        {"service": "still", "type": "ratelimiting", "param": 0},
    ],
    "default_strategy": {"type": "probabilistic", "param": 0.5},
}  # fmt: skip


def imported(service: str = "") -> tuple[Engine, str, list[str]]:
    text, warnings = import_rules("jaeger", json.dumps(STRATEGIES), "strategies.json", service=service)
    return Engine(Ruleset.from_text(text)), text, [warning.message for warning in warnings]


@pytest.mark.parametrize(
    ("method", "path", "rule", "probability"),
    [
        ("POST", "/orders/17/pay", "post-orders-id-pay", 1.0),
        ("GET", "/orders/17/pay", "rest", 0.001),  # where Jaeger's adaptive sampling begins
        ("GET", "/health", "health", 0.0),
        ("GET", "/Health/", "health-2", 0.25),
        ("GET", "/", "rest", 0.001),
    ],
)
def test_rules_of_a_service(method: str, path: str, rule: str, probability: float) -> None:
    """Each route by its own rate, the rest by that of the service."""
    engine, _, _ = imported("shop")
    decision = engine.decide("192.0.2.1", method=method, path=path)

    assert rule == decision.record_rule
    assert probability == pytest.approx(decision.sampling_probability)
    assert decision.record or probability < 1


def test_what_is_not_the_same_is_told() -> None:
    """Operations that are no routes, rates of a process, and rates too low for a controller."""
    _, text, warnings = imported("shop")
    assert "operation 'Orders.Charge' is no HTTP route; it gets no class" in warnings
    assert "ratelimiting is of each process in Jaeger" in warnings
    assert "# - ratelimiting is of each process in Jaeger; per_second is of a host, over its workers" in text

    _, text, warnings = imported("still")
    assert "'rest' keeps 0 traces a second" in warnings
    assert "controller: target, per_second: 0.01666666667" in text


def test_another_service_has_the_default() -> None:
    """As in Jaeger; also without a name."""
    for service in ("", "search"):
        engine, _, warnings = imported(service)
        decision = engine.decide("192.0.2.1", method="GET", path="/x")

        assert ("rest", 0.5, []) == (decision.record_rule, decision.sampling_probability, warnings)


@pytest.mark.parametrize("text", ["{", "[]", '{"default_strategy": {"type": "adaptive", "param": 1}}'])
def test_what_jaeger_would_not_take(text: Any) -> None:
    """RuleError, with its place."""
    with pytest.raises(RuleError, match=r"strategies\.json:1:"):
        import_rules("jaeger", text, "strategies.json")
